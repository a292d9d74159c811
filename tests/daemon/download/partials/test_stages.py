"""The table of a partial's stages: written down as it is, and kept for each stage and event by a real partial."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from modeld.download.partials import stages
from modeld.download.partials.journal import Header
from modeld.download.partials.partial import Partial
from modeld.download.partials.stages import IGNORED, TABLE, Event, ImpossibleMove, Stage
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout

DIGEST = Digest("ab" * 32)
HEADER = Header(DIGEST.hex, 100)
STAGES: tuple[Stage, ...] = get_args(Stage)
EVENTS: tuple[Event, ...] = get_args(Event)
PAIRS = list(product(STAGES, EVENTS))

WAYS: dict[Stage, tuple[Event, ...]] = {
    "opened": (),
    "empty": ("begin",),
    "resumed": ("resume",),
    "filling": ("begin", "write"),
    "hashed": ("begin", "write", "hash"),
    "sealed": ("begin", "write", "hash", "seal"),
    "condemned": ("begin", "write", "hash", "condemn"),
    "kept": ("begin", "write", "keep"),
    "removed": ("begin", "write", "remove"),
}
"""How a partial that was just opened comes to each stage."""


def written_table() -> dict[tuple[str, str], str]:
    """The one in the module's docstring, by stage and event."""
    rows = re.findall(r"^    (\w.*)$", str(stages.__doc__), re.MULTILINE)
    head, *body = [row.split() for row in rows]
    return {(cells[0], column): cell for cells in body for column, cell in zip(head[1:], cells[1:], strict=True)}


WRITTEN = written_table()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path))
    os.makedirs(layout.partial_dir(DIGEST))
    return layout


def partial_at(layout: Layout, stage: Stage, *, journal: bool = True) -> Partial:
    """With files of its own, as `Partial.open` makes them."""
    directory = layout.partial_dir(DIGEST)
    path = f"{directory}/data.tmp"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    lock = os.open(f"{directory}/journal", os.O_RDWR | os.O_CREAT, 0o600) if journal else None
    partial = Partial(directory if journal else None, path, descriptor, lock)
    for event in WAYS[stage]:
        meet(partial, event)
    assert partial.stage == stage
    return partial


def meet(partial: Partial, event: Event) -> None:
    """By the method that stands for the event, where the partial has one."""
    own: dict[Event, Callable[[], None]] = {
        "begin": lambda: partial.begin(HEADER),
        "keep": partial.close,
        "remove": partial.remove,
    }
    own.get(event, lambda: partial.move(event))()


def test_the_table_that_is_written_is_the_one_that_counts() -> None:
    assert set(WRITTEN) == set(PAIRS)
    assert set(TABLE) == set(STAGES)
    for stage, event in PAIRS:
        other = "-" if event in IGNORED.get(stage, ()) else "!"
        assert WRITTEN[stage, event] == TABLE[stage].get(event, other), (stage, event)


@pytest.mark.parametrize(("stage", "event"), PAIRS)
def test_each_event_at_each_stage_moves_the_partial_or_is_refused_or_ignored(
    layout: Layout, stage: Stage, event: Event
) -> None:
    partial = partial_at(layout, stage)
    directory = Path(layout.partial_dir(DIGEST))
    before = directory.exists()
    expected = WRITTEN[stage, event]
    if expected == "!":
        with pytest.raises(ImpossibleMove, match=rf"{stage} cannot meet the event '{event}'"):
            meet(partial, event)
    else:
        meet(partial, event)
    assert partial.stage == (stage if expected in "!-" else expected)
    assert directory.exists() == (before and expected != "removed"), "only a removal takes the files away"
    if partial.stage in ("kept", "removed"):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(partial.descriptor)
    else:
        partial.remove()


@pytest.mark.parametrize("stage", [stage for stage in STAGES if "keep" in TABLE[stage]])
def test_without_a_journal_there_is_nothing_to_keep(layout: Layout, stage: Stage) -> None:
    partial = partial_at(layout, stage, journal=False)
    partial.close()
    partial.close()
    assert partial.stage == "removed"
    assert not os.path.exists(partial.path)


def test_the_stage_of_a_partial_that_was_opened_is_what_was_found(layout: Layout) -> None:
    with_pieces = Partial.open(layout, HEADER, DIGEST, None)
    assert with_pieces.stage == "empty"
    in_use_elsewhere = Partial.open(layout, HEADER, DIGEST, None)
    assert (in_use_elsewhere.stage, in_use_elsewhere.resumable) == ("empty", False)
    in_use_elsewhere.close()
    with_pieces.close()
    again = Partial.open(layout, HEADER, DIGEST, None)
    assert again.stage == "resumed"
    again.remove()
