"""A source is a regular file, opened with no more rights than the requesting user has."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from modeld.store.ingest.readers import PeerReader, Reader, list_allows
from modelwire.errors import InvalidRequest, PermissionDenied, SourceNotFound

STRANGER, FRIEND, CLUB = 64_001, 64_002, 64_003
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs files of other users")


@pytest.fixture(autouse=True)
def reachable(tmp_path: Path) -> None:
    """The runner's directories are closed to others, these tests are about what lies below."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and directory.stat().st_mode & 0o011 != 0o011:
            directory.chmod(0o755)


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


def refused(path: str, uid: int = STRANGER, gids: tuple[int, ...] = ()) -> str:
    with pytest.raises(PermissionDenied) as caught:
        os.close(PeerReader(uid, gids).open(path))
    return caught.value.message


def test_a_regular_file_opens(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    assert content(Reader().open(path)) == b"weights"
    assert content(PeerReader(STRANGER, ()).open(path)) == b"weights"


def test_a_link_to_a_file_opens(tmp_path: Path) -> None:
    os.symlink(a_file(tmp_path), tmp_path / "link")
    assert content(Reader().open(str(tmp_path / "link"))) == b"weights"


@pytest.mark.parametrize("path", ["model.gguf", "./model.gguf", "", "~/model.gguf"])
def test_only_absolute_paths(path: str) -> None:
    with pytest.raises(InvalidRequest, match="not absolute"):
        Reader().open(path)
    with pytest.raises(InvalidRequest, match="not absolute"):
        PeerReader(STRANGER, ()).open(path)


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
    with pytest.raises(InvalidRequest, match=f"is {kind}, not a regular file"):
        PeerReader(STRANGER, ()).open(path)


def test_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path / "absent" / "deeper", Path(a_file(tmp_path)) / "below"):
        with pytest.raises(SourceNotFound):
            Reader().open(str(path))
        with pytest.raises(SourceNotFound):
            PeerReader(STRANGER, ()).open(str(path))


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
    with pytest.raises(InvalidRequest, match="40 symbolic links"):
        PeerReader(STRANGER, ()).open(str(tmp_path / "a"))


def test_stranger_may_not_read_a_closed_file(tmp_path: Path) -> None:
    assert "may not read it" in refused(a_file(tmp_path, mode=0o640))


def test_stranger_may_not_pass_a_closed_directory(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    path = a_file(closed)
    closed.chmod(0o750)
    assert f"may not search the directory {closed}" in refused(path)
    closed.chmod(0o751)
    assert content(PeerReader(STRANGER, ()).open(path)) == b"weights"


def test_a_link_does_not_get_around_a_closed_directory(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    os.symlink(a_file(closed), tmp_path / "absolute")
    os.symlink("closed/model.gguf", tmp_path / "relative")
    os.symlink("closed/../model", tmp_path / "through")
    a_file(tmp_path, "model")
    closed.chmod(0o700)
    for link in ("absolute", "relative", "through"):
        assert "may not search" in refused(str(tmp_path / link))
    closed.chmod(0o755)
    for link in ("absolute", "relative", "through"):
        assert content(PeerReader(STRANGER, ()).open(str(tmp_path / link))) == b"weights"


def test_links_to_directories_are_followed(tmp_path: Path) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    a_file(tmp_path / "one" / "two")
    os.symlink("one/two/", tmp_path / "short")
    assert content(PeerReader(STRANGER, ()).open(f"{tmp_path}/short/./../two//model.gguf")) == b"weights"


def test_a_file_changed_for_another_on_the_way_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment between the check and the opening: what is opened is what was checked."""
    path = Path(a_file(tmp_path))
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0o600)
    check = PeerReader._check_right

    def swap(reader: PeerReader, descriptor: int, path_: str, *rights: int, where: str = "") -> None:
        check(reader, descriptor, path_, *rights, where=where)
        if 4 in rights and secret.exists():
            os.rename(secret, path)

    monkeypatch.setattr(PeerReader, "_check_right", swap)
    assert content(PeerReader(STRANGER, ()).open(str(path))) == b"weights"
    assert not secret.exists()


@root_only
def test_the_first_class_that_fits_decides(tmp_path: Path) -> None:
    path = a_file(tmp_path, mode=0o044)
    os.chown(path, STRANGER, CLUB)
    refused(path, STRANGER, (CLUB,))
    assert content(PeerReader(FRIEND, (CLUB,)).open(path)) == b"weights"
    os.chmod(path, 0o404)
    refused(path, FRIEND, (CLUB,))
    assert content(PeerReader(FRIEND, ()).open(path)) == b"weights"
    assert content(PeerReader(STRANGER, ()).open(path)) == b"weights"
    os.chmod(path, 0o000)
    assert content(Reader(0).open(path)) == b"weights"


def access_list(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF


@root_only
def test_an_access_list_decides_where_there_is_one(tmp_path: Path) -> None:
    path = a_file(tmp_path, mode=0o640)
    os.chown(path, 0, CLUB)
    entries = (
        (0x01, 6, NOBODY),  # the owner
        (0x02, 4, FRIEND),
        (0x04, 0, NOBODY),  # the owning group has nothing, though the mode's group bits show the mask
        (0x10, 4, NOBODY),
        (0x20, 0, NOBODY),
    )
    try:
        os.setxattr(path, "system.posix_acl_access", access_list(*entries))
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert content(PeerReader(FRIEND, ()).open(path)) == b"weights"
    refused(path, STRANGER, (CLUB,))
    refused(path, STRANGER, ())


def test_the_rule_of_access_lists() -> None:
    entries = [(0x01, 7, NOBODY), (0x02, 4, 7), (0x04, 4, NOBODY), (0x08, 5, 9), (0x10, 5, NOBODY), (0x20, 1, NOBODY)]

    def allows(uid: int, gids: tuple[int, ...], right: int) -> bool:
        return list_allows(access_list(*entries), 8, uid, gids, right)

    assert allows(7, (), 4)
    assert not allows(7, (9,), 1)
    assert allows(1, (8,), 4)
    assert not allows(1, (8,), 1)
    assert allows(1, (8, 9), 1)
    assert allows(1, (), 1)
    assert not allows(1, (), 4)
    assert not list_allows(access_list(), 8, 1, (8,), 4)
    masked = [(0x02, 7, 7), (0x10, 1, NOBODY), (0x20, 4, NOBODY)]
    assert not list_allows(access_list(*masked), 8, 7, (), 4)
