"""The facts of a GGUF header, by the keys that its programs write."""

from __future__ import annotations

from modeld.inspect.gguf import Gguf
from modeld.inspect.gguf_cache import cache_layers, state_bytes
from modeld.inspect.gguf_keys import Keys
from modeld.inspect.gguf_types import FILE_TYPES, GUESSED, TENSOR_TYPES
from modeld.inspect.merging import quantization_of
from modelwire.values import ModelFacts, Shard


def facts_of(header: Gguf, descriptor: int, size: int) -> ModelFacts:
    keys = Keys(header, descriptor, size)
    types = {_type_name(kind): count for kind, count in sorted(header.type_bytes.items())}
    return ModelFacts(
        format="gguf",
        kind=keys.text("general.type"),
        architecture=keys.architecture,
        name=keys.text("general.name"),
        version=keys.text("general.version"),
        license=keys.text("general.license"),
        parameters=keys.number("general.parameter_count") or header.weights,
        quantization=quantization_of(_file_type(keys), types),
        file_type=_file_type(keys),
        weights=header.weights,
        tensors=header.tensor_count,
        tensor_bytes=sum(types.values()),
        tensor_types=types,
        context_length=keys.of_model("context_length"),
        embedding_length=keys.of_model("embedding_length"),
        layers=keys.of_model("block_count"),
        heads=_heads(keys),
        tokenizer=keys.text("tokenizer.ggml.model"),
        vocabulary=keys.items("tokenizer.ggml.tokens") or keys.of_model("vocab_size"),
        chat_template=keys.has("tokenizer.chat_template"),
        shard=_shard(keys),
        big_endian=header.order == ">",
        cache=cache_layers(keys),
        state_bytes=state_bytes(keys),
    )


def _type_name(kind: int) -> str:
    known = TENSOR_TYPES.get(kind)
    return f"type {kind}" if known is None else known.name


def _heads(keys: Keys) -> int | None:
    """The most that a layer has."""
    layers = keys.of_model("block_count") or 1
    return max(keys.per_layer("attention.head_count", layers) or (), default=None)


def _file_type(keys: Keys) -> str | None:
    said = keys.number("general.file_type")
    return None if said is None else FILE_TYPES.get(said & ~GUESSED)


def _shard(keys: Keys) -> Shard | None:
    number, count = keys.number("split.no"), keys.number("split.count")
    if number is None or not count or number >= count:
        return None
    return Shard(number=number + 1, count=count, tensors=keys.number("split.tensors.count"))
