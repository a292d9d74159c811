"""A `config.json` says what the headers of safetensors files have no words for, as far as it can be believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modeld.inspect.configuration import configured
from modelwire.values import CacheLayers, ModelFacts

HEADERS = ModelFacts(format="safetensors", parameters=100, weights=100, quantization="BF16", tensor_bytes=200)

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "max_position_embeddings": 131_072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
}


def of(given: Any) -> ModelFacts:
    return configured(HEADERS, json.dumps(given).encode())


def test_a_language_model() -> None:
    facts = of(LLAMA)
    assert (facts.architecture, facts.kind, facts.context_length) == ("llama", "model", 131_072)
    assert (facts.embedding_length, facts.layers, facts.heads, facts.vocabulary) == (4096, 32, 32, 128_256)
    assert facts.cache == (CacheLayers(layers=32, keys=1024, values=1024),)
    assert (facts.parameters, facts.quantization) == (100, "BF16")


def test_older_words() -> None:
    facts = of(
        {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_ctx": 1024,
            "n_embd": 768,
            "n_head": 12,
            "n_layer": 12,
        }
    )
    assert (facts.context_length, facts.embedding_length, facts.heads, facts.layers) == (1024, 768, 12, 12)
    assert facts.cache == (CacheLayers(layers=12, keys=768, values=768),)


def test_the_part_for_text_of_a_model_that_sees() -> None:
    given = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "hidden_size": 1,
        "text_config": LLAMA
        | {
            "head_dim": 256,
            "sliding_window": 1024,
            "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5 + ["sliding_attention"] * 2,
        },
        "vision_config": {"hidden_size": 1152},
    }
    facts = of(given)
    assert (facts.architecture, facts.kind, facts.embedding_length) == ("gemma3", "vlm", 4096)
    assert facts.cache == (
        CacheLayers(layers=5, keys=2048, values=2048),
        CacheLayers(layers=27, keys=2048, values=2048, window=1024),
    )


def test_a_thinking_part_has_one_for_text() -> None:
    given = {"architectures": ["OmniForConditionalGeneration"], "thinker_config": {"text_config": LLAMA}}
    assert of(given).context_length == 131_072


def test_a_window_that_is_not_used() -> None:
    (layers,) = of(LLAMA | {"sliding_window": 4096, "use_sliding_window": False}).cache
    assert layers.window is None
    (layers,) = of(LLAMA | {"model_type": "mistral", "sliding_window": 4096}).cache
    assert layers.window == 4096


def test_layers_with_and_without_a_window_take_turns_where_the_kind_of_model_is_known_for_it() -> None:
    """The file of Gemma 2 has a window, and no word on which layers use it."""
    cache = of(LLAMA | {"model_type": "gemma2", "num_hidden_layers": 26, "sliding_window": 4096}).cache
    assert [(each.layers, each.window) for each in cache] == [(13, None), (13, 4096)]


@pytest.mark.parametrize(
    ("quantization", "word", "parameters"),
    [
        ({"quant_method": "gptq", "bits": 4}, "INT4", None),
        ({"quant_method": "awq", "w_bit": 4}, "INT4", None),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "INT4", None),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "INT8", 100),
        ({"quant_method": "mxfp4"}, "INT4", None),
        ({"quant_method": "fp8"}, "FP8", 100),
        ({"quant_method": "gptq", "bits": 0}, "BF16", 100),
        ({"quant_method": "unheard"}, "BF16", 100),
        ([], "BF16", 100),
    ],
)
def test_packed_weights_are_no_parameters(quantization: Any, word: str, parameters: int | None) -> None:
    facts = of(LLAMA | {"quantization_config": quantization})
    assert (facts.quantization, facts.parameters) == (word, parameters)


@pytest.mark.parametrize(
    "other",
    [
        {"architectures": ["BertModel"], "model_type": "bert"},
        {"is_encoder_decoder": True},
        {"architectures": None},
        {"kv_lora_rank": 512},
        {"layer_types": ["linear_attention"] * 32},
        {"layer_types": ["full_attention"] * 31},
        {"layer_types": ["sliding_attention"] * 32},
        {"sliding_window": 512, "sliding_window_pattern": 6},
        {"sliding_window": 512},
        {"num_hidden_layers": 10**9},
        {"num_attention_heads": 0},
        {"hidden_size": "4096"},
    ],
)
def test_a_cache_that_is_not_certain_is_not_known(other: dict[str, Any]) -> None:
    assert of(LLAMA | other).cache == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"num_hidden_layers": 1e999}',
        b'{"text_config": []}',
        b'{"hidden_size": -1, "vocab_size": true, "n_layer": 2.5, "model_type": 7, "architectures": [7]}',
    ],
)
def test_a_damaged_configuration_changes_nothing(content: bytes) -> None:
    assert configured(HEADERS, content) == HEADERS
