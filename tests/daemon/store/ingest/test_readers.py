"""A source is a regular file, at a path that the daemon opens or handed over by the client that opened it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modeld.access.handed import Descriptors, HandedFiles
from modeld.platform import files
from modeld.store.ingest.copying import Source
from modeld.store.ingest.readers import HandedReader, Reader, check_answers, check_handed
from modelwire.errors import InvalidRequest, PermissionDenied, SourceNotFound, SourceUnavailable

STRANGER = 64_001


def a_file(directory: Path, name: str = "model.gguf", mode: int = 0o644) -> str:
    path = directory / name
    path.write_bytes(b"weights")
    path.chmod(mode)
    return str(path)


def content(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def test_a_regular_file_opens(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    assert content(Reader().open(path)) == b"weights"


def test_a_link_to_a_file_opens(tmp_path: Path) -> None:
    os.symlink(a_file(tmp_path), tmp_path / "link")
    assert content(Reader().open(str(tmp_path / "link"))) == b"weights"


@pytest.mark.parametrize("path", ["model.gguf", "./model.gguf", "", "~/model.gguf"])
def test_only_absolute_paths(path: str) -> None:
    with pytest.raises(InvalidRequest, match="not absolute"):
        Reader().open(path)


def test_no_nul() -> None:
    with pytest.raises(InvalidRequest, match="NUL"):
        Reader().open("/tmp/a\0b")


@pytest.mark.parametrize("kind", ["a directory", "a named pipe", "a socket", "a character device"])
def test_anything_else_is_refused_by_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = str(tmp_path / "thing")
    if kind == "a directory":
        os.mkdir(path)
    elif kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as sock:
            monkeypatch.chdir(tmp_path)
            sock.bind("thing")
    else:
        path = "/dev/null"
    with pytest.raises(InvalidRequest, match=f"is {kind}, not a regular file"):
        Reader().open(path)


def test_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path / "absent" / "deeper", Path(a_file(tmp_path)) / "below"):
        with pytest.raises(SourceNotFound):
            Reader().open(str(path))


def test_unreadable_has_a_hint(tmp_path: Path) -> None:
    path = a_file(tmp_path, mode=0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(STRANGER)  # root reads everything
    try:
        with pytest.raises(PermissionDenied) as caught:
            Reader().open(path)
    finally:
        if root:
            os.seteuid(0)
    assert "readable" in (caught.value.hint or "")


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(InvalidRequest):
        Reader().open(str(tmp_path / "a"))


@contextmanager
def handed(descriptor: int) -> Iterator[HandedFiles]:
    of = Descriptors()
    of.count(STRANGER, [descriptor])
    transfer = HandedFiles(of, STRANGER, directory=False)
    transfer.add(["model.gguf"], [descriptor])
    try:
        yield transfer
    finally:
        transfer.close()


def test_a_handed_file_is_read_through_a_descriptor_of_its_own(tmp_path: Path) -> None:
    """What its name leads to by now does not matter, nor does where the client has read to."""
    path = a_file(tmp_path)
    descriptor = os.open(path, os.O_RDONLY)
    os.unlink(path)
    with handed(descriptor) as transfer:
        reader = HandedReader(str(tmp_path), transfer)
        assert reader.uid == STRANGER
        opened = reader.open(reader.where("model.gguf"))
        transfer.close()
        os.lseek(opened, 5, os.SEEK_SET)
        assert os.pread(opened, 100, 0) == b"weights"
        os.close(opened)
        with pytest.raises(SourceUnavailable, match="has ended"):
            reader.open(path)


def test_no_lease_is_taken_on_a_file_that_a_client_has_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease of an open file belongs to all who have it: the client could choose the signal that the daemon gets."""
    path = a_file(tmp_path)
    asked: list[int] = []
    monkeypatch.setattr(files, "lease", asked.append)
    with handed(os.open(path, os.O_RDONLY)) as transfer:
        reader = HandedReader(str(tmp_path), transfer)
        opened = reader.open(path)
        assert Source.of(opened, path, reader.has_writer).has_writer is None
        os.close(opened)
    assert asked == []


def bad_descriptor(kind: str, tmp_path: Path) -> int:
    path = a_file(tmp_path)
    match kind:
        case "a directory":
            return os.open(tmp_path, os.O_RDONLY)
        case "a named pipe":
            reader, writer = os.pipe()
            os.close(writer)
            return reader
        case "a socket":
            return socket.socket(socket.AF_UNIX).detach()
        case "a character device":
            return os.open("/dev/null", os.O_RDONLY)
        case "to be named alone":
            return os.open(path, os.O_PATH)
        case _:
            return os.open(path, os.O_WRONLY)


@pytest.mark.parametrize("check", [check_handed, check_answers])
@pytest.mark.parametrize(
    "kind", ["a directory", "a named pipe", "a socket", "a character device", "to be named alone", "for writing"]
)
def test_a_descriptor_that_is_no_readable_file_is_refused(
    tmp_path: Path, kind: str, check: Callable[[str, int], None]
) -> None:
    descriptor = bad_descriptor(kind, tmp_path)
    try:
        with pytest.raises(InvalidRequest, match=f"is {kind}, not a regular file|cannot be read"):
            check("/m.gguf", descriptor)
    finally:
        os.close(descriptor)


def test_another_users_file_is_not_read_from_a_program_of_that_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would never have to answer, and a thread of the daemon would wait for it."""
    monkeypatch.setattr(files, "served_by_program", lambda _: True)
    with open(a_file(tmp_path), "rb") as file:
        check_handed("/m.gguf", file.fileno())
        with pytest.raises(InvalidRequest, match="FUSE") as caught:
            check_answers("/m.gguf", file.fileno())
    assert "Copy it" in (caught.value.hint or "")
