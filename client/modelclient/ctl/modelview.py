"""What the command prints of models, in lists and alone."""

from __future__ import annotations

from modelwire.units import rounded_size
from modelwire.values import ModelView
from modelwire.vocabulary import COMING


def state_of(model: ModelView) -> str:
    return model.state if model.progress is None else f"{model.state} {int(model.progress * 100)}%"


def size_of(model: ModelView) -> str:
    """Empty while it is not known."""
    return "" if model.state in COMING and not model.size_bytes else rounded_size(model.size_bytes)
