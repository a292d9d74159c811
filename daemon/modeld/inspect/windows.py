"""Which layers of an architecture attend to a window of the last tokens, and which to all."""

from __future__ import annotations

from typing import Final

_PERIODS: Final = {
    "afmoe": 4,
    "cohere2": 4,
    "exaone4": 4,
    "gemma-embedding": 6,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "olmo2": 4,
    "plamo3": 8,
    "smallthinker": 4,
}
"""Of so many layers the last attends to all tokens and the others to a window, where the model does not say."""

_FULL_FIRST: Final = frozenset({"smallthinker"})
"""Of each period the first layer attends to all tokens, not the last."""


def windowed(architecture: str, layers: int, period: int | None = None) -> list[bool] | None:
    """Of each layer; None when it is not known. `period` is what the model says itself."""
    period = period or _PERIODS.get(architecture)
    if period is None:
        return None
    full = 0 if architecture in _FULL_FIRST else period - 1
    return [layer % period != full for layer in range(layers)]
