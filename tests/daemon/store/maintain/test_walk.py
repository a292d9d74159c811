"""The one walk over the blob tree: what it calls each thing that lies there, and where it does not go."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from modeld.progress import Stopped
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.root import prepare_root
from modeld.store.maintain.walk import BlobFile, Partial, Stray, Unusable, keyed_partials, walk

ONE, TWO = Digest("ab" * 32), Digest("cd" * 32)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return prepare_root(str(tmp_path / "models"))


def put(path: str, content: bytes = b"x") -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_bytes(content)
    return path


def test_a_blob_has_its_digest_and_its_stat(layout: Layout) -> None:
    path = put(layout.blob(ONE), b"bytes")
    (found,) = walk(layout)
    assert isinstance(found, BlobFile)
    assert (found.digest, found.info) == (ONE.hex, os.lstat(path))
    assert "/".join((layout.root, *found.parts)) == path


def test_a_download_is_counted_with_all_its_files(layout: Layout) -> None:
    put(layout.partial(ONE), b"bytes")
    journal = put(f"{layout.partial_dir(ONE)}/journal", b"123")
    os.utime(journal, (2**31, 2**31))
    (found,) = keyed_partials(layout)
    assert isinstance(found, Partial)
    assert (found.digest, found.size, found.newest) == (ONE.hex, 8, 2**31)
    assert found.info == os.lstat(layout.partial_dir(ONE))
    assert list(walk(layout)) == []


def test_a_download_of_another_tool_is_counted_too(layout: Layout) -> None:
    put(f"{layout.shared_partial_dir(ONE)}/data.tmp", b"bytes")
    (found,) = walk(layout)
    assert isinstance(found, Partial)
    assert (found.digest, found.size) == (ONE.hex, 5)
    assert list(keyed_partials(layout)) == []


def test_a_download_without_a_digest_lies_beside_it(layout: Layout) -> None:
    assert list(keyed_partials(layout)) == []
    put(f"{layout.keyed_partials}/key/data.tmp", b"bytes")
    (found,) = keyed_partials(layout)
    assert isinstance(found, Partial)
    assert (found.digest, found.size, found.parts) == (None, 5, (".modeld", "partials", "key"))
    assert list(walk(layout)) == []


@pytest.mark.parametrize(
    "parts",
    [
        ("zz", "file"),
        ("aa", "not-a-digest", "data"),
        ("aa", "b" * 64, "data"),
        ("aa", ".partial-short", "data.tmp"),
        ("file",),
    ],
)
def test_what_the_store_does_not_make_is_a_stray(layout: Layout, parts: tuple[str, ...]) -> None:
    put("/".join((layout.blobs_dir, *parts)))
    assert [type(found) for found in walk(layout)] == [Stray]


def test_an_empty_directory_of_a_blob_is_a_stray(layout: Layout) -> None:
    os.makedirs(os.path.dirname(layout.blob(ONE)))
    assert [type(found) for found in walk(layout)] == [Stray]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_file_in_place_of_a_blob_is_unusable(layout: Layout, make: object) -> None:
    assert callable(make)
    os.makedirs(os.path.dirname(layout.blob(ONE)))
    make(layout.blob(ONE))
    (found,) = walk(layout)
    assert isinstance(found, Unusable)
    assert found.reason == "is not a regular file and is left alone"


@pytest.mark.parametrize("level", ["fanout", "blob", "partial"])
def test_no_link_is_followed(layout: Layout, tmp_path: Path, level: str) -> None:
    outside = tmp_path / "outside"
    path = {
        "fanout": f"{layout.blobs_dir}/ab",
        "blob": os.path.dirname(layout.blob(ONE)),
        "partial": layout.shared_partial_dir(ONE),
    }[level]
    put(layout.blob(ONE) if level != "partial" else f"{path}/data.tmp")
    os.rename(path, outside)
    os.symlink(outside, path)
    assert [type(found) for found in walk(layout)] == [Stray]


def test_the_tree_itself_may_be_reached_by_a_link(layout: Layout, tmp_path: Path) -> None:
    """Who keeps the blobs elsewhere on the filesystem is still held to the store's limit."""
    put(layout.blob(ONE))
    os.rename(layout.blobs_dir, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", layout.blobs_dir)
    assert [type(found) for found in walk(layout)] == [BlobFile]


def test_what_cannot_be_looked_at_is_said(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    put(layout.blob(ONE))
    put(layout.blob(TWO))
    real = os.open

    def refuse(path: str, *arguments: Any, **named: Any) -> int:
        if path == "ab":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    found = list(walk(layout))
    assert [type(each) for each in found] == [Unusable, BlobFile]
    assert isinstance(found[0], Unusable)
    assert found[0].reason == "cannot be looked at: Permission denied"


def test_a_store_that_is_away_has_nothing(tmp_path: Path) -> None:
    assert list(walk(Layout(str(tmp_path / "nowhere")))) == []


def test_it_is_sorted_and_leaves_no_descriptor_open(layout: Layout) -> None:
    for digest in (TWO, ONE):
        put(layout.blob(digest))
        put(f"{layout.shared_partial_dir(digest)}/data.tmp")
    before = len(os.listdir("/proc/self/fd"))
    found = [(type(each), each.digest) for each in walk(layout) if isinstance(each, BlobFile | Partial)]
    assert found == [(Partial, ONE.hex), (BlobFile, ONE.hex), (Partial, TWO.hex), (BlobFile, TWO.hex)]
    first = walk(layout)
    next(first)
    del first
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_ends_when_it_is_not_wanted(layout: Layout) -> None:
    for number in range(4):
        put(layout.blob(Digest(f"{number:02x}" * 32)))

    wanted = iter([False, False, True])
    found = walk(layout, lambda: next(wanted))
    assert [type(next(found)), type(next(found))] == [BlobFile, BlobFile]
    with pytest.raises(Stopped):
        next(found)
