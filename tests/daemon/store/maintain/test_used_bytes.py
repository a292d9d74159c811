"""How much the store holds is counted on the disk, and not at each question."""

from __future__ import annotations

import os
from pathlib import Path

from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.root import prepare_root
from modeld.store.maintain.used_bytes import FRESH_SHARE, UsedBytes


class Clock:
    """Each look at it takes a second, so a count takes one too."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def put(layout: Layout, path: str, size: int) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_bytes(b"x" * size)


def test_committed_blobs_count_and_nothing_else(tmp_path: Path) -> None:
    layout = prepare_root(str(tmp_path / "models"))
    put(layout, layout.blob(Digest("ab" * 32)), 10)
    put(layout, layout.blob(Digest("cd" * 32)), 5)
    put(layout, layout.partial(Digest("ef" * 32)), 100)
    put(layout, f"{layout.shared_partial_dir(Digest('ef' * 32))}/data.tmp", 100)
    put(layout, f"{layout.staging}/x", 100)
    os.symlink("/", f"{layout.blobs_dir}/elsewhere")
    os.makedirs(os.path.dirname(layout.blob(Digest("01" * 32))))
    assert UsedBytes(layout)() == 15


def test_it_is_counted_again_in_proportion_to_what_that_costs(tmp_path: Path) -> None:
    layout = prepare_root(str(tmp_path / "models"))
    clock = Clock()
    used = UsedBytes(layout, clock)
    assert used() == 0
    put(layout, layout.blob(Digest("ab" * 32)), 10)
    assert used() == 0
    clock.now += FRESH_SHARE
    assert used() == 10


def test_a_store_that_is_away_holds_nothing(tmp_path: Path) -> None:
    assert UsedBytes(Layout(str(tmp_path / "nowhere")))() == 0
