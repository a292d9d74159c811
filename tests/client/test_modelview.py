"""The state and the size of a model in words."""

from __future__ import annotations

from typing import Any

import pytest

from modelclient.ctl.modelview import size_of, state_of
from modelwire.values import ModelView


def view(**changes: Any) -> ModelView:
    usual: dict[str, Any] = {"name": "m", "format": "gguf", "blob": "", "size_bytes": 0, "state": "downloading"}
    return ModelView(**usual | changes)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"state": "ready"}, "ready"),
        ({}, "downloading"),
        ({"progress": 0.0}, "downloading 0%"),
        ({"progress": 0.999}, "downloading 99%"),
        ({"progress": 1.0}, "downloading 100%"),
    ],
)
def test_the_state_has_the_progress_where_it_is_known(changes: dict[str, Any], state: str) -> None:
    assert state_of(view(**changes)) == state


def test_a_size_that_is_not_known_is_left_out() -> None:
    assert size_of(view()) == ""
    assert size_of(view(size_bytes=2000)) == "2.00 kB"
    assert size_of(view(state="failed")) == "0 B"
