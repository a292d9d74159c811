"""The facts of GGUF headers: what the keys say, what the tensors say, and what an engine will keep of each token."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from modeld.inspect import gguf
from modeld.inspect.gguf_facts import facts_of
from modelwire.values import CacheLayers, ModelFacts, Shard
from rigs.gguf_headers import gguf_file
from rigs.opened import opened
from rigs.tiny_gguf import write_tiny_llama

F32, F16, Q4_K, Q6_K = (0, 256, 1024), (1, 256, 512), (12, 256, 144), (14, 256, 210)


def facts(path: Path) -> ModelFacts:
    with opened(path) as (descriptor, size):
        return facts_of(gguf.read(descriptor, size), descriptor, size)


def facts_in(tmp_path: Path, fields: dict[str, Any], **tensors: tuple[int, int, int]) -> ModelFacts:
    path = tmp_path / "made.gguf"
    path.write_bytes(gguf_file(fields, tensors))
    return facts(path)


def test_a_real_model_says_all_of_itself(tmp_path: Path) -> None:
    (path,) = write_tiny_llama(tmp_path / "tiny.gguf")
    assert facts(path) == ModelFacts(
        format="gguf",
        architecture="llama",
        name="tiny",
        parameters=74_304,
        weights=74_304,
        quantization="F32",
        file_type="F32",
        tensors=12,
        tensor_bytes=297_216,
        tensor_types={"F32": 297_216},
        context_length=256,
        embedding_length=64,
        layers=1,
        heads=2,
        tokenizer="llama",
        vocabulary=259,
        cache=(CacheLayers(layers=1, keys=64, values=64),),
    )


def test_the_other_words_of_a_header(tmp_path: Path) -> None:
    said = facts_in(
        tmp_path,
        {
            "general.architecture": "qwen",
            "general.type": "adapter",
            "general.version": "v2",
            "general.license": "mit",
            "general.parameter_count": 7_000_000_000,
            "tokenizer.chat_template": "{{ x }}",
            "qwen.vocab_size": 151_936,
        },
    )
    assert (said.kind, said.version, said.license) == ("adapter", "v2", "mit")
    assert (said.parameters, said.chat_template, said.vocabulary) == (7_000_000_000, True, 151_936)


@pytest.mark.parametrize(
    ("file_type", "tensors", "expected"),
    [
        (15, {"a": Q4_K, "b": Q6_K, "c": F32}, "Q4_K_M"),
        (15 | 1024, {"a": Q4_K}, "Q4_K_M"),
        (10, {"embedding": Q6_K, "b": F32}, "Q2_K"),
        (1, {"a": F16, "b": F32}, "F16"),
        (1, {"a": F32}, "F32"),
        (1, {"a": F16, "b": F16, "c": F16, "d": F32}, "F16"),
        (1, {"a": Q4_K}, "Q4_K"),
        (15, {"a": F32}, "F32"),
        (None, {"a": Q4_K, "b": Q4_K, "c": Q6_K}, "Q4_K"),
        (999, {"a": Q4_K}, "Q4_K"),
        (15, {}, "Q4_K_M"),
        (None, {}, None),
        (None, {"a": (77, 256, 0)}, "type 77"),
    ],
)
def test_the_quantization(
    tmp_path: Path, file_type: int | None, tensors: dict[str, tuple[int, int, int]], expected: str | None
) -> None:
    fields = {} if file_type is None else {"general.file_type": file_type}
    assert facts_in(tmp_path, fields, **tensors).quantization == expected


def test_each_shard_says_its_place(tmp_path: Path) -> None:
    made = [facts(path) for path in write_tiny_llama(tmp_path / "tiny.gguf", shards=3)]
    assert [each.shard for each in made] == [Shard(number=number, count=3, tensors=12) for number in (1, 2, 3)]
    assert sum(each.parameters or 0 for each in made) == 74_304


@pytest.mark.parametrize(
    "fields", [{"split.no": 3, "split.count": 3}, {"split.no": 0, "split.count": 0}, {"split.no": 1}]
)
def test_a_place_that_cannot_be_is_none(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert facts_in(tmp_path, fields).shard is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"general.architecture": 7, "general.name": ["x"], "general.file_type": "F16"},
        {"general.architecture": "a", "a.context_length": "long", "a.block_count": 0.5, "tokenizer.ggml.tokens": "x"},
        {"general.architecture": "a", "a.block_count": 2**60, "a.attention.head_count": 1},
        {"general.architecture": "a", "a.block_count": 2**52, "a.attention.head_count": 1, "a.ssm.conv_kernel": 1},
        {"general.architecture": "a", "a.block_count": 2, "a.attention.head_count": ["x", "y"]},
        {"general.architecture": "a", "a.block_count": 2, "a.attention.head_count": [1]},
        {"general.architecture": "a", "a.block_count": 2, "a.attention.head_count": 0},
        {"general.architecture": "a", "a.block_count": 0, "a.attention.head_count": 1},
        {
            "general.architecture": "a",
            "a.block_count": 4096,
            "a.attention.head_count": 1,
            "a.attention.sliding_window": 0,
        },
    ],
)
def test_keys_of_other_types_are_as_good_as_absent(tmp_path: Path, wrong: dict[str, Any]) -> None:
    said = facts_in(tmp_path, wrong)
    assert (said.name, said.quantization, said.context_length, said.vocabulary) == (None, None, None, None)


ATTENTION = {
    "kv": "head_count_kv",
    "key": "key_length",
    "value": "value_length",
    "window": "sliding_window",
    "pattern": "sliding_window_pattern",
    "shared": "shared_kv_layers",
    "key_in_window": "key_length_swa",
    "value_in_window": "value_length_swa",
    "rank": "kv_lora_rank",
    "key_expanded": "key_length_mla",
}


def model(architecture: str = "a", layers: int = 6, **keys: Any) -> dict[str, Any]:
    named = {f"attention.{ATTENTION[key]}" if key in ATTENTION else key: each for key, each in keys.items()}
    made = {"block_count": layers, "embedding_length": 64, "attention.head_count": 8, **named}
    return {"general.architecture": architecture} | {f"{architecture}.{key}": each for key, each in made.items()}


@pytest.mark.parametrize(
    ("fields", "cache"),
    [
        (model(), [(6, 64, 64, None)]),
        (model(kv=2), [(6, 16, 16, None)]),
        (model(kv=2, key=32, value=16), [(6, 64, 32, None)]),
        (model(kv=[2, 2, 0, 4, 4, 4]), [(2, 16, 16, None), (3, 32, 32, None)]),
        (model(kv=0), []),
        (model(kv=2) | {"a.attention.head_count": 0}, []),
        (model(window=512), [(6, 64, 64, None)]),
        (model(window=512, pattern=3), [(4, 64, 64, 512), (2, 64, 64, None)]),
        (model(window=512, pattern=[True, False, True, *[False] * 3]), [(2, 64, 64, 512), (4, 64, 64, None)]),
        (model(window=512, pattern=[True]), [(6, 64, 64, None)]),
        (model("gemma3", 7, window=512), [(6, 64, 64, 512), (1, 64, 64, None)]),
        (model("gpt-oss", window=128), [(3, 64, 64, 128), (3, 64, 64, None)]),
        (model("smallthinker", 8, window=128), [(2, 64, 64, None), (6, 64, 64, 128)]),
        (model("llama4", 4), [(3, 64, 64, 8192), (1, 64, 64, None)]),
        (model("llama4", 4, window=0), [(4, 64, 64, None)]),
        (model("qwen3next", 8), [(2, 64, 64, None)]),
        (model("other", 6, full_attention_interval=3), [(2, 64, 64, None)]),
        (model("glm4moe", 6, nextn_predict_layers=1), [(5, 64, 64, None)]),
        (model("bert"), []),
        (model("nomic-bert-moe"), []),
        (model("gemma3n", 10, window=512, shared=5), [(4, 64, 64, 512), (1, 64, 64, None)]),
        (
            model(window=8, pattern=2, key_in_window=4, value_in_window=2),
            [(3, 32, 16, 8), (3, 64, 64, None)],
        ),
        (model(kv=1, key=576, value=512, rank=512, key_expanded=192), [(6, 576, 0, None)]),
    ],
)
def test_what_an_engine_keeps_of_each_token(
    tmp_path: Path, fields: dict[str, Any], cache: list[tuple[int, int, int, int | None]]
) -> None:
    said = facts_in(tmp_path, fields).cache
    assert [(each.layers, each.keys, each.values, each.window) for each in said] == cache


def test_what_an_engine_keeps_of_a_sequence(tmp_path: Path) -> None:
    recurrent: dict[str, Any] = {
        "ssm.conv_kernel": 4,
        "ssm.inner_size": 128,
        "ssm.state_size": 16,
        "ssm.group_count": 2,
    }
    state = 4 * (3 * (128 + 2 * 2 * 16) + 16 * 128)
    assert facts_in(tmp_path, model(**recurrent)).state_bytes == 6 * state
    hybrid = model(kv=[0, 0, 0, 8, 0, 0], **recurrent)
    assert facts_in(tmp_path, hybrid).state_bytes == 5 * state
    assert facts_in(tmp_path, model()).state_bytes is None
    assert facts_in(tmp_path, model("qwen3next", 8, **recurrent)).state_bytes == 6 * state
    forward = model(layers=4, kv=[0, 0, 2, 0], feed_forward_length=[0, 128, 0, 128], **recurrent)
    assert facts_in(tmp_path, forward).state_bytes == state


def test_bytes_of_a_file_type_are_read_in_either_width(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    key = b"general.file_type"
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(key)) + key + struct.pack("<IB", 0, 7))
    assert facts(path).quantization == "Q8_0"
