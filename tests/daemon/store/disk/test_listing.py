"""The names of a directory that others write to, without reading it again and again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from modeld.store.disk.layout import Layout
from modeld.store.disk.listing import SETTLED_NS, Listing
from modeld.store.disk.root import prepare_root
from modeld.store.names import ModelName


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class Looks:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = os.listdir

        def listdir(path: str) -> object:
            self.count += 1
            return real(path)

        monkeypatch.setattr(os, "listdir", listdir)


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
    listing, looks = Listing(layout), Looks(monkeypatch)
    assert listing.names() == ["a", "b", "c:1"]
    assert listing.names() == ["a", "b", "c:1"]
    assert listing.spelling(ModelName.parse("C:1")) == "c:1"
    assert looks.count == 1
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
    listing, looks = Listing(layout, Clock()), Looks(monkeypatch)
    for _ in range(100):
        assert listing.spelling(ModelName.parse("b")) is None
    assert 1 < looks.count < 20


def publish(layout: Layout, listing: Listing, text: str) -> None:
    name = ModelName.parse(text)
    with listing.changing(name):
        touch(layout, name.stem)


def test_own_changes_need_no_look(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    until_settled(layout)
    clock = Clock()
    listing = Listing(layout, clock)
    assert listing.names() == []
    looks = Looks(monkeypatch)
    for text in ("b", "a:x", "a", "a"):
        publish(layout, listing, text)
    assert listing.spelling(ModelName.parse("A")) == "a"
    assert listing.close_to(ModelName.parse("B")) == ["b"]
    with listing.changing(ModelName.parse("b")):
        os.unlink(f"{layout.manifests_dir}/b.json")
    assert listing.spelling(ModelName.parse("b")) is None
    assert looks.count == 0
    assert listing.names() == ["a", "a:x"]
    assert looks.count == 1


def test_a_publication_that_fails_changes_nothing(layout: Layout) -> None:
    listing = Listing(layout)
    with pytest.raises(OSError, match="disk"), listing.changing(ModelName.parse("a")):
        raise OSError("disk")
    assert listing.spelling(ModelName.parse("a")) is None
    assert listing.names() == []


def test_what_another_tool_did_in_the_same_moment_is_noticed(layout: Layout) -> None:
    until_settled(layout)
    clock = Clock()
    listing = Listing(layout, clock)
    assert listing.names() == []
    with listing.changing(ModelName.parse("ours")):
        touch(layout, "ours", "Theirs")
    assert listing.spelling(ModelName.parse("theirs")) is None
    clock.now += 60
    assert listing.spelling(ModelName.parse("theirs")) == "Theirs"
    with listing.changing(ModelName.parse("more")):
        touch(layout, "more", "others")
    assert listing.names() == ["Theirs", "more", "others", "ours"]


def test_a_second_spelling_of_our_own_is_not_taken_up(layout: Layout) -> None:
    listing = Listing(layout)
    publish(layout, listing, "llama")
    publish(layout, listing, "LLAMA")
    assert listing.spelling(ModelName.parse("LLAMA")) == "llama"
    assert listing.names() == ["llama"]


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
    touch(layout, *(f"model-{number:04}" for number in range(500)))
    listing = Listing(layout)
    listing.names()
    close = listing.close_to(ModelName.parse("model-0100x"))
    assert "model-0100" in close
    assert len(close) <= 3
