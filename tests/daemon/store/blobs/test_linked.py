"""The records of blobs that other programs can write to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modeld.store.blobs.blobs import stat_blob
from modeld.store.blobs.linked import Linked
from modeld.store.digest import Digest, Signature
from modeld.store.disk.layout import Layout

DIGEST = Digest("ab" * 32)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "models"))
    for path in made.skeleton:
        os.makedirs(path, exist_ok=True)
    os.makedirs(os.path.dirname(made.blob(DIGEST)))
    Path(made.blob(DIGEST)).write_bytes(b"one")
    return made


def loaded(layout: Layout) -> Linked:
    made = Linked(layout)
    made.load()
    return made


def now(layout: Layout) -> Signature:
    return Signature.of(os.lstat(layout.blob(DIGEST)))


def test_nothing_is_suspect_that_is_not_linked(layout: Layout) -> None:
    linked = loaded(layout)
    assert DIGEST not in linked
    assert linked.digest_of(now(layout)) is None
    assert not linked.suspect(DIGEST, now(layout))


@pytest.mark.parametrize("change", ["mode", "times", "bytes", "replaced"])
def test_a_change_is_noticed_also_by_the_next_run(layout: Layout, change: str) -> None:
    linked = loaded(layout)
    linked.good(DIGEST, now(layout), "/home/ada/m.gguf")
    again = loaded(layout)
    assert not again.suspect(DIGEST, now(layout))
    path = Path(layout.blob(DIGEST))
    if change == "mode":
        path.chmod(0o600)
    elif change == "times":
        os.utime(path)
    elif change == "bytes":
        path.write_bytes(b"two")
    else:
        path.with_name("new").write_bytes(b"one")
        os.replace(path.with_name("new"), path)
    assert linked.suspect(DIGEST, now(layout))
    assert again.suspect(DIGEST, now(layout))
    again.good(DIGEST, now(layout))
    assert not loaded(layout).suspect(DIGEST, now(layout))
    assert "/home/ada/m.gguf" in Path(layout.linked_blob(DIGEST)).read_text()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"device": "x"}', bytes(9000), b"[" * 9000])
def test_a_mark_that_cannot_be_read_makes_its_blob_suspect(layout: Layout, damage: bytes) -> None:
    loaded(layout).good(DIGEST, now(layout))
    Path(layout.linked_blob(DIGEST)).write_bytes(damage)
    assert loaded(layout).suspect(DIGEST, now(layout))


def test_marks_without_a_blob_and_foreign_files_are_nothing(layout: Layout) -> None:
    linked = loaded(layout)
    linked.good(DIGEST, now(layout))
    (Path(layout.linked) / "stranger").touch()
    os.unlink(layout.blob(DIGEST))
    assert DIGEST not in loaded(layout)
    assert os.listdir(layout.linked) == ["stranger"]


def test_the_file_itself_is_recognised_whatever_its_bytes(layout: Layout) -> None:
    linked = loaded(layout)
    linked.good(DIGEST, now(layout))
    Path(layout.blob(DIGEST)).write_bytes(b"changed")
    assert linked.digest_of(now(layout)) == DIGEST
    linked.forget(DIGEST)
    assert linked.digest_of(now(layout)) is None
    assert os.listdir(layout.linked) == []


def test_the_last_other_name_gone_it_is_the_stores_alone(layout: Layout, tmp_path: Path) -> None:
    linked = loaded(layout)
    for name in ("one", "two"):
        os.link(layout.blob(DIGEST), tmp_path / name)
    linked.good(DIGEST, now(layout))
    for name, still in (("one", True), ("two", False)):
        before = now(layout)
        os.unlink(tmp_path / name)
        blob = stat_blob(layout, DIGEST)
        assert blob is not None
        linked.relinked(blob, before)
        assert (DIGEST in linked) == still
        assert not linked.suspect(DIGEST, now(layout))
