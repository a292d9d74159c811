"""What a sweep remembers of the manifests, and how it says how old a thing is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.store.sweeping import victims
from modeld.store.sweeping.marks import Marks
from store.care_bench import DAY, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_marks_are_read_again_only_after_a_change(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from modeld.store.sweeping import marks as module

    monkeypatch.setattr(module, "settled", lambda *_: True)
    read: list[str] = []
    real = module._digests_in

    def counted(path: str) -> frozenset[str]:
        read.append(path)
        return real(path)

    monkeypatch.setattr(module, "_digests_in", counted)
    marks = Marks(bench.layout)
    Path(bench.manifest("a")).write_text("a" * 64)
    assert marks.look().digests == {"a" * 64}
    assert marks.look().digests == {"a" * 64}
    assert len(read) == 1
    Path(bench.manifest("b")).write_text("b" * 64)
    assert marks.look().digests == {"a" * 64, "b" * 64}
    assert len(read) == 2
    os.unlink(bench.manifest("a"))
    assert marks.look().digests == {"b" * 64}


@pytest.mark.parametrize(("seconds", "told"), [(-1, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"),
                                                (2 * DAY, "2 d")])  # fmt: skip
def test_spans(seconds: float, told: str) -> None:
    assert victims.span(seconds) == told
