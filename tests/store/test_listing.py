"""The names of a directory that others write to, without reading it again and again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from modeld.store.layout import Layout
from modeld.store.listing import SETTLED_NS, Listing
from modeld.store.names import ModelName
from modeld.store.root import prepare_root


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class Scans:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = os.scandir

        def scandir(path: str) -> object:
            self.count += 1
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return prepare_root(str(tmp_path / "models"))


def touch(layout: Layout, *stems: str) -> None:
    for stem in stems:
        Path(layout.manifests_dir, f"{stem}.json").write_bytes(b"{}")


def until_settled(layout: Layout) -> None:
    deadline = time.monotonic() + 10
    while time.time_ns() - os.stat(layout.manifests_dir).st_ctime_ns <= SETTLED_NS:
        assert time.monotonic() < deadline


def test_an_unchanged_directory_is_read_once(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(layout, "b", "a", "c+1")
    until_settled(layout)
    listing, scans = Listing(layout), Scans(monkeypatch)
    assert listing.names() == ["a", "b", "c:1"]
    assert listing.names() == ["a", "b", "c:1"]
    assert listing.spelling(ModelName.parse("C:1")) == "c:1"
    assert scans.count == 1
    touch(layout, "d")
    assert listing.names() == ["a", "b", "c:1", "d"]
    os.unlink(f"{layout.manifests_dir}/a.json")
    assert listing.names() == ["b", "c:1", "d"]


def test_a_directory_that_never_rests_is_not_read_for_every_missing_name(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(layout, "a")
    ahead = time.time_ns() + 3600 * 10**9
    os.utime(layout.manifests_dir, ns=(ahead, ahead))
    listing, scans = Listing(layout, Clock()), Scans(monkeypatch)
    for _ in range(100):
        assert listing.spelling(ModelName.parse("b")) is None
    assert 1 < scans.count < 20


def test_own_changes_need_no_look(layout: Layout) -> None:
    listing = Listing(layout)
    assert listing.names() == []
    for text in ("b", "a:x", "a"):
        touch(layout, ModelName.parse(text).stem)
        listing.add(ModelName.parse(text))
    listing.add(ModelName.parse("a"))
    listing.add(ModelName.parse("A"))
    assert listing.close_to(ModelName.parse("A")) == ["a"]
    assert listing.spelling(ModelName.parse("A")) == "a"
    assert listing.close_to(ModelName.parse("aa")) == ["a"]
    listing.discard(ModelName.parse("a"))
    listing.discard(ModelName.parse("B"))
    assert listing.close_to(ModelName.parse("b")) == ["b"]


def test_the_spelling_that_was_known_first_stays(layout: Layout) -> None:
    touch(layout, "llama")
    listing = Listing(layout)
    assert listing.names() == ["llama"]
    touch(layout, "LLAMA", "Llama")
    assert listing.names() == ["llama"]
    assert {stem for stem, _ in listing.refused} == {"LLAMA", "Llama"}
    assert all("'llama'" in why for _, why in listing.refused)
    os.unlink(f"{layout.manifests_dir}/llama.json")
    assert listing.names() == ["LLAMA"]


def test_a_hint_is_bounded(layout: Layout) -> None:
    listing = Listing(layout)
    listing.names()
    for number in range(2000):
        listing.add(ModelName.parse(f"model-{number:04}"))
    close = listing.close_to(ModelName.parse("model-1000x"))
    assert "model-1000" in close
    assert len(close) <= 3
