"""The notes of a move tell an unfinished copy from a store, and a damaged note keeps no store from being served."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from modeld.store.disk import durable, former
from modeld.store.disk.former import Moving
from modeld.store.disk.layout import Layout
from modeld.store.disk.root import RootUnusable, prepare_root


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return prepare_root(str(tmp_path / "models"))


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


DAMAGED: Final[dict[str, Callable[[Path], object]]] = {
    "empty": text(""),
    "no json": text("\0" * 4096),
    "another json": text("[]"),
    "no path": text('{"root": ""}'),
    "relative": text('{"root": "models"}'),
    "zero": text('{"root": "/a\\u0000b"}'),
    "zero in the former": text('{"root": "/a", "former": "/a\\u0000b"}'),
    "long": text('{"root": "/' + "a" * 100_000),
    "deep": text("[" * 10_000),
    "directory": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("elsewhere"),
    "fifo": lambda path: os.mkfifo(path),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("name", ["moving", "former"])
def test_a_damaged_note_says_nothing(layout: Layout, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(layout.root)
    DAMAGED[kind](Path(layout.private, name))
    prepare_root(layout.root)
    note = former.former(layout)
    assert note is None or note.former is None
    assert os.path.lexists(f"{layout.private}/{name}"), "it is left for a person to look at"


def test_an_unfinished_copy_is_no_store(layout: Layout) -> None:
    former.note_moving(layout, Moving(root="/elsewhere/models"))
    with pytest.raises(RootUnusable, match="unfinished copy of the store at /elsewhere/models"):
        prepare_root(layout.root)


def test_a_note_that_cannot_be_settled_is_as_good(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    former.note_moving(layout, Moving(root=layout.root, former="/old", inode=7))
    with monkeypatch.context() as failing:
        failing.setattr(durable, "name_replacing", refuse)
        prepare_root(layout.root)
        assert former.former(layout) == Moving(root=layout.root, former="/old", inode=7)
    prepare_root(layout.root)
    assert not os.path.exists(layout.moving)
    assert former.former(layout) == Moving(root=layout.root, former="/old", inode=7)


def test_the_newer_of_two_notes_counts_and_both_are_forgotten(layout: Layout) -> None:
    for directory in ("/first", "/second"):
        former.note_moving(layout, Moving(root=layout.root, former=directory))
        if directory == "/first":
            former.settle(layout)
    found = former.former(layout)
    assert found is not None
    assert found.former == "/second"
    former.forget(layout)
    assert former.former(layout) is None


def test_what_a_later_version_notes_is_passed_over(layout: Layout) -> None:
    Path(layout.former).write_text(json.dumps({"root": layout.root, "former": "/old", "later": [1]}))
    found = former.former(layout)
    assert found is not None
    assert found.former == "/old"
