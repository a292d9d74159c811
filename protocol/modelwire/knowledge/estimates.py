"""How much video memory a model takes: by a rule of thumb, and by its header.

The rule counts two bytes a weight, less by the bits of the quantization, and a fifth for the rest. The header has the
bytes of the tensors and the numbers that an engine keeps of each token, so the caller gives the length of the context.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from modelwire.values.facts import CacheLayers, EstimatedVram, ModelFacts
from modelwire.vocabulary import CACHE_TYPE_DEFAULT, CacheType

LARGEST: Final = 2**32 - 1

_PLAIN_BITS: Final = 16
"""Of a weight whose quantization does not say."""

_BITS: Final = re.compile(r"(?:F|BF|FP|MXFP|NVFP|I?Q|TQ|U?INT|[IU])(\d+)", re.IGNORECASE)

_BATCH: Final = 512
"""Tokens that llama.cpp keeps beside a window while it computes them, by default."""

_PAD: Final = 256
"""llama.cpp rounds the cache of a layer up to so many tokens."""

CACHE_BITS: Final[dict[CacheType, float]] = {
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "q8_0": 8.5,
    "q5_1": 6.0,
    "q5_0": 5.5,
    "q4_1": 5.0,
    "q4_0": 4.5,
    "iq4_nl": 4.5,
}
"""Of a number in the cache, with its share of the scales, by the types that llama.cpp takes for it."""


def estimate(facts: ModelFacts, context: int | None, cache_type: CacheType) -> EstimatedVram:
    """Both, as far as the header says enough."""
    tokens = facts.context_length if context is None else context
    known = facts.parameters is not None and facts.quantization is not None
    return EstimatedVram(
        formula=vram_by_formula((facts.parameters or 0) / 1e9, facts.quantization or "", 0) if known else None,
        header=vram_by_header(facts, tokens, cache_type=cache_type),
        context=tokens,
        cache_type=cache_type,
    )


def nominal_bits(quantization: str) -> int:
    """Of a weight: 4 for `Q4_K_M`."""
    found = _BITS.match(quantization)
    return int(found[1]) if found is not None else _PLAIN_BITS


def vram_by_formula(params_billions: float | None, quantization: str, recommended_vram_mb: int) -> int:
    """In MB. Without a number of parameters the recommendation."""
    if params_billions is None:
        return _clamped(recommended_vram_mb)
    if not abs(params_billions) <= LARGEST:  # not a number, too
        return LARGEST if params_billions > 0 else 0
    return _clamped(int(int(params_billions * 2 * 1024) * (nominal_bits(quantization) / 16) * 1.2))


def vram_by_header(facts: ModelFacts, tokens: int | None, *, cache_type: CacheType = CACHE_TYPE_DEFAULT) -> int | None:
    """In MB: tensors and the cache of so many tokens. None when the header does not say enough."""
    if facts.tensor_bytes is None or facts.opaque is not None or (not facts.cache and facts.state_bytes is None):
        return None
    if tokens is None:
        return None
    size = facts.tensor_bytes + cache_bytes(facts.cache, tokens, cache_type) + (facts.state_bytes or 0)
    return _clamped(-(-size // (1 << 20)))


def cache_bytes(layers: Iterable[CacheLayers], tokens: int, cache_type: CacheType = CACHE_TYPE_DEFAULT) -> int:
    numbers = sum(each.layers * (each.keys + each.values) * kept_tokens(tokens, each.window) for each in layers)
    return int(numbers * CACHE_BITS[cache_type] / 8)


def kept_tokens(tokens: int, window: int | None) -> int:
    """Of a context of so many."""
    kept = tokens if window is None else min(tokens, window + _BATCH)
    return -(-kept // _PAD) * _PAD


def _clamped(megabytes: int) -> int:
    return max(0, min(megabytes, LARGEST))
