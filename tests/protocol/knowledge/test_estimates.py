"""The memory that a model takes, by the rule and by its header."""

from __future__ import annotations

import math

import pytest

from modelwire.knowledge.estimates import cache_bytes, kept_tokens, nominal_bits, vram_by_formula, vram_by_header
from modelwire.values import CacheLayers, ModelFacts

MIB = 1 << 20


@pytest.mark.parametrize(
    ("billions", "quantization", "megabytes"),
    [(3.0, "Q4_K_M", 1843), (8.0, "Q4_K_M", 4915), (3.0, "F16", 7372), (3.0, "F32", 14745), (0.0, "F16", 0)],
)
def test_the_formula(billions: float, quantization: str, megabytes: int) -> None:
    assert vram_by_formula(billions, quantization, 99) == megabytes


@pytest.mark.parametrize(
    ("quantization", "factor"),
    [
        ("F32", 2),
        ("F16", 1),
        ("BF16", 1),
        ("Q8_0", 0.5),
        ("Q6_K", 0.375),
        ("Q5_K_S", 0.3125),
        ("Q4_K_M", 0.25),
        ("q4_0", 0.25),
        ("Q3_K_L", 0.1875),
        ("Q2_K", 0.125),
        ("IQ4_XS", 0.25),
        ("MXFP4", 0.25),
        ("F8_E4M3", 0.5),
        ("U8", 0.5),
        ("INT8", 0.5),
        ("", 1),
        ("custom", 1),
    ],
)
def test_the_factor_of_a_quantization(quantization: str, factor: float) -> None:
    assert nominal_bits(quantization) / 16 == factor


def test_without_a_number_of_parameters_the_recommendation_counts() -> None:
    assert vram_by_formula(None, "Q4_K_M", 4096) == 4096
    assert vram_by_formula(None, "Q4_K_M", 2**40) == 2**32 - 1


@pytest.mark.parametrize(
    ("billions", "megabytes"),
    [(1e7, 2**32 - 1), (1e300, 2**32 - 1), (math.inf, 2**32 - 1), (math.nan, 0), (-1.0, 0), (-math.inf, 0)],
)
def test_the_formula_is_clamped(billions: float, megabytes: int) -> None:
    assert vram_by_formula(billions, "F16", 0) == megabytes


def test_both_roundings_of_the_formula() -> None:
    assert vram_by_formula(0.0009, "F32", 0) == int(int(0.0009 * 2 * 1024) * 2 * 1.2) == 2


def test_the_cache_counts_grouped_heads_windows_and_its_type() -> None:
    layers = (CacheLayers(layers=5, keys=1024, values=512, window=1024), CacheLayers(layers=1, keys=1024, values=512))
    assert cache_bytes(layers, 8192) == 2 * 1536 * (5 * 1536 + 8192)
    assert cache_bytes(layers, 8192, "q8_0") == int(8.5 / 8 * 1536 * (5 * 1536 + 8192))
    assert cache_bytes(layers, 512) == 2 * 1536 * 6 * 512


def test_the_tokens_that_are_kept() -> None:
    assert [kept_tokens(tokens, None) for tokens in (1, 256, 257, 4096)] == [256, 256, 512, 4096]
    assert [kept_tokens(tokens, 100) for tokens in (1, 600, 100_000)] == [256, 768, 768]


def test_the_header_gives_tensors_and_cache() -> None:
    facts = ModelFacts(
        format="gguf",
        tensor_bytes=100 * MIB,
        context_length=8192,
        cache=(CacheLayers(layers=32, keys=1024, values=1024),),
    )
    assert vram_by_header(facts, 8192) == 100 + 1024
    assert vram_by_header(facts, 4096) == 100 + 512
    assert vram_by_header(facts, 4096, cache_type="f32") == 100 + 1024


def test_a_header_that_does_not_say_enough_gives_nothing() -> None:
    assert vram_by_header(ModelFacts(format="safetensors", tensor_bytes=7), 4096) is None
    assert vram_by_header(ModelFacts(format="gguf", opaque="damaged", tensor_bytes=7), 4096) is None
    cache = (CacheLayers(layers=1, keys=1, values=1),)
    assert vram_by_header(ModelFacts(format="gguf", tensor_bytes=7, cache=cache), None) is None


def test_a_model_with_states_needs_no_cache() -> None:
    assert vram_by_header(ModelFacts(format="gguf", tensor_bytes=MIB, state_bytes=1), 10**6) == 2
