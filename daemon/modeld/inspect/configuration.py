"""What a `config.json` beside safetensors files says of their model: the header has no words for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from modeld.inspect.windows import windowed
from modelwire.values import CacheLayers, ModelFacts

NAME: Final = "config.json"

MAX_BYTES: Final = 1 << 20
"""The longest known have 100 KiB: a table of labels."""

_MOST: Final = 2**40
"""Of any count. Contexts have 10 million tokens, vocabularies a million words."""

_MAX_LAYERS: Final = 10_000

_LANGUAGE: Final = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
"""Where models of several kinds of input keep the part for text."""

_KEYS: Final = {
    "context_length": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"),
    "embedding_length": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "vocabulary": ("vocab_size",),
}

_OTHER_LAYERS: Final = (
    "kv_lora_rank",
    "layers_block_type",
    "attn_layer_period",
    "mamba_d_state",
    "ssm_cfg",
    "hybrid_override_pattern",
    "num_kv_shared_layers",
)
"""Of models whose layers keep something else than keys and values of each token."""

_GENERATING: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Ends of the names of classes that continue a text."""

_WINDOWS: Final = {"full_attention": False, "sliding_attention": True}

_WINDOW_IN_ALL: Final = frozenset({"mistral", "mixtral", "phi3", "starcoder2"})
"""Kinds of models without a word on single layers."""

_PACKED_BITS: Final = 8
"""Weights of fewer bits are packed into numbers of other types, which are no parameters."""


def configured(facts: ModelFacts, content: bytes) -> ModelFacts:
    """The facts of the headers with those of the configuration, which comes from the same hands and may be damaged."""
    try:
        given = msgspec.json.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return facts
    if not isinstance(given, dict):
        return facts
    parts = list(_parts(given))
    known: dict[str, Any] = {field: _count(parts, keys) for field, keys in _KEYS.items()}
    bits = _bits(parts)
    if bits is not None:
        known["quantization"] = ("FP" if _method(parts) == "fp8" else "INT") + str(bits)
        if bits < _PACKED_BITS:
            known["parameters"] = None
    classes = _texts(given.get("architectures"))
    known["architecture"] = _text(given, "model_type") or next(iter(classes), None)
    generates = any(each.endswith(_GENERATING) for each in classes) and given.get("is_encoder_decoder") is not True
    if classes:
        known["kind"] = classes[0] if not generates else "vlm" if "vision_config" in given else "model"
    changes = {field: value for field, value in known.items() if value is not None or field == "parameters"}
    return msgspec.structs.replace(facts, **changes, cache=_cache(parts, known) if generates else ())


def _parts(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects that may say it, the one for text first."""
    for key in _LANGUAGE:
        inner = given.get(key)
        if isinstance(inner, dict):
            yield from _parts_below(inner)
    yield given


def _parts_below(inner: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One level more: the part that thinks has one for text."""
    text = inner.get("text_config")
    if isinstance(text, dict):
        yield text
    yield inner


def _count(parts: list[dict[str, Any]], keys: tuple[str, ...]) -> int | None:
    found = (part.get(key) for part in parts for key in keys)
    return next((value for value in found if type(value) is int and 0 < value <= _MOST), None)


def _text(given: dict[str, Any], key: str) -> str | None:
    value = given.get(key)
    return value[:100] if isinstance(value, str) and value else None


def _texts(given: object) -> list[str]:
    return [each[:100] for each in given if isinstance(each, str)] if isinstance(given, list) else []


def _quantization(parts: list[dict[str, Any]]) -> dict[str, Any]:
    found = (part.get("quantization_config") for part in parts)
    return next((each for each in found if isinstance(each, dict)), {})


def _method(parts: list[dict[str, Any]]) -> str | None:
    return _text(_quantization(parts), "quant_method")


def _bits(parts: list[dict[str, Any]]) -> int | None:
    """Of a quantized weight."""
    given = _quantization(parts)
    if not given:
        return None
    bits = given.get("bits", given.get("w_bit"))
    if type(bits) is int and 0 < bits <= 16:
        return bits
    if given.get("load_in_4bit") is True or _method(parts) == "mxfp4":
        return 4
    return 8 if given.get("load_in_8bit") is True or _method(parts) == "fp8" else None


def _cache(parts: list[dict[str, Any]], known: dict[str, Any]) -> tuple[CacheLayers, ...]:
    """Empty when the configuration does not say enough, or the layers are of other kinds."""
    layers, heads, width = known["layers"], known["heads"], known["embedding_length"]
    if not layers or not heads or layers > _MAX_LAYERS or any(key in part for part in parts for key in _OTHER_LAYERS):
        return ()
    kv_heads = _count(parts, ("num_key_value_heads", "num_kv_heads", "n_kv_heads")) or heads
    head = _count(parts, ("head_dim",)) or (width or 0) // heads
    if not head:
        return ()
    window = _count(parts, ("sliding_window",)) if _uses_window(parts) else None
    in_window = _in_window(parts, known["architecture"] or "", layers, there_is_one=window is not None)
    if len(in_window) != layers or None in in_window or (True in in_window and window is None):
        return ()
    numbers = kv_heads * head
    groups = Counter(window if each else None for each in in_window)
    return tuple(
        CacheLayers(layers=count, keys=numbers, values=numbers, window=each)
        for each, count in sorted(groups.items(), key=lambda group: group[0] or 0)
    )


def _in_window(
    parts: list[dict[str, Any]], architecture: str, layers: int, *, there_is_one: bool
) -> list[bool] | list[bool | None]:
    """Whether each layer attends to the window; empty when that is not certain."""
    if (types := next((_texts(part["layer_types"]) for part in parts if "layer_types" in part), None)) is not None:
        return [_WINDOWS.get(each) for each in types]
    if not there_is_one:
        return [False] * layers
    if architecture in _WINDOW_IN_ALL:
        return [True] * layers
    if any("sliding_window_pattern" in part for part in parts):
        return []
    return windowed(architecture.removesuffix("_text").replace("_", "-"), layers) or []


def _uses_window(parts: list[dict[str, Any]]) -> bool:
    return not any(part.get("use_sliding_window") is False for part in parts)
