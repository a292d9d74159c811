"""What a full disk is given: all of the reserve for jobs that free space, and a part of it for what has ended."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from modeld.store.disk.layout import Layout
from modeld.store.disk.reserve import BYTES, Reserve


def allocated(layout: Layout) -> int:
    return os.stat(f"{layout.private}/reserve").st_blocks * 512


def made(directory: Path) -> tuple[Reserve, Layout]:
    layout = Layout(str(directory))
    os.makedirs(layout.private)
    return Reserve(layout), layout


def test_parts_are_given_until_half_is_left(tmp_path: Path) -> None:
    reserve, layout = made(tmp_path)
    assert reserve.refill()
    before = allocated(layout)
    assert before >= BYTES
    for _ in count():
        if not reserve.release_part():
            break
        assert allocated(layout) < before
        before = allocated(layout)
    assert before == BYTES // 2
    assert reserve.release()
    assert not reserve.release_part()
    assert not reserve.release()


def test_it_is_made_whole_again(tmp_path: Path) -> None:
    reserve, layout = made(tmp_path)
    assert not reserve.release_part()
    assert reserve.refill()
    assert reserve.release_part()
    assert reserve.refill()
    assert allocated(layout) >= BYTES
