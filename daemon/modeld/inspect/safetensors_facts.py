"""The facts of a safetensors header. It has no words for what the model is: a configuration beside it has."""

from __future__ import annotations

from collections import Counter
from typing import Final

from modeld.inspect.merging import quantization_of
from modeld.inspect.safetensors import Safetensors
from modelwire.values import ModelFacts

_MAX_METADATA: Final = 16 << 10
"""Characters that are kept. Training tools write a whole history there."""


def facts_of(header: Safetensors) -> ModelFacts:
    types = Counter[str]()
    for tensor in header.tensors:
        types[tensor.dtype] += tensor.size
    weights = sum(tensor.weights for tensor in header.tensors)
    return ModelFacts(
        format="safetensors",
        parameters=weights,
        weights=weights,
        quantization=quantization_of(None, types),
        tensors=len(header.tensors),
        tensor_bytes=types.total(),
        tensor_types=dict(sorted(types.items())),
        metadata=_kept(header.metadata),
    )


def _kept(metadata: dict[str, str]) -> dict[str, str]:
    """The shorter texts first, as far as there is room."""
    kept: dict[str, str] = {}
    room = _MAX_METADATA
    for key, text in sorted(metadata.items(), key=lambda pair: len(pair[0]) + len(pair[1])):
        room -= len(key) + len(text)
        if room < 0:
            break
        kept[key] = text
    return kept
