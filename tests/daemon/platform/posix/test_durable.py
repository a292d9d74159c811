"""Each call does what the recipe of a publication counts on, also where the filesystem has only the lesser one."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from modeld.platform.posix import durable


def new_file(directory: Path) -> int:
    return os.open(directory / "file", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)


@pytest.fixture(params=["exclusive rename", "link"])
def naming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to give a name: filesystems without the rename get a link."""
    if request.param == "link":

        def absent(_source: str, _target: str) -> None:
            return None

        monkeypatch.setattr(durable, "_rename_exclusive", absent)


def test_two_entries_exchange_their_names(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "inside").write_bytes(b"1")
    (tmp_path / "link").symlink_to("elsewhere")

    assert durable.exchange(str(tmp_path / "directory"), str(tmp_path / "link"))

    assert os.readlink(tmp_path / "directory") == "elsewhere"
    assert (tmp_path / "link" / "inside").read_bytes() == b"1"


def test_a_name_that_is_missing_is_exchanged_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(FileNotFoundError):
        durable.exchange(str(tmp_path / "file"), str(tmp_path / "missing"))
    assert os.listdir(tmp_path) == ["file"]


def test_without_such_a_rename_nothing_is_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(durable._LIBC, "renameat2", refuse)
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    assert not durable.exchange(str(tmp_path / "one"), str(tmp_path / "two"))
    assert (tmp_path / "one").read_bytes() == b"1"


def test_short_writes_and_reads_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwritev, preadv = os.pwritev, os.preadv

    def write_few(descriptor: int, data: list[memoryview], *rest: int) -> int:
        return pwritev(descriptor, [data[0][:3]], *rest)

    def read_few(descriptor: int, into: list[memoryview], *rest: int) -> int:
        return preadv(descriptor, [into[0][:3]], *rest)

    monkeypatch.setattr(os, "pwritev", write_few)
    monkeypatch.setattr(os, "preadv", read_few)
    descriptor = new_file(tmp_path)
    try:
        durable.write_at(descriptor, memoryview(b"0123456789"), 2)
        buffer = memoryview(bytearray(20))
        assert durable.read_at(descriptor, buffer, 0) == 12
        assert bytes(buffer[:12]) == b"\0\0" + b"0123456789"
        assert durable.read_at(descriptor, buffer, 12) == 0
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("naming")
def test_a_name_is_given_once(tmp_path: Path) -> None:
    for index in range(2):
        (tmp_path / f"t{index}").write_bytes(b"%d" % index)
    name = str(tmp_path / "name")
    assert durable.name_without_replacing(str(tmp_path / "t0"), name)
    assert not durable.name_without_replacing(str(tmp_path / "t1"), name)
    assert Path(name).read_bytes() == b"0"
    assert sorted(os.listdir(tmp_path)) == ["name", "t1"]


@pytest.mark.usefixtures("naming")
def test_a_dangling_link_takes_the_name_too(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"")
    os.symlink("nowhere", tmp_path / "name")
    assert not durable.name_without_replacing(str(tmp_path / "t"), str(tmp_path / "name"))


@pytest.mark.usefixtures("naming")
def test_naming_in_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"")
    with pytest.raises(FileNotFoundError):
        durable.name_without_replacing(str(tmp_path / "t"), str(tmp_path / "absent" / "name"))
    assert (tmp_path / "t").exists()


def test_room_is_taken_without_content(tmp_path: Path) -> None:
    descriptor = new_file(tmp_path)
    try:
        if durable.preallocate(descriptor, 1 << 20):
            assert os.fstat(descriptor).st_blocks * 512 >= 1 << 20
        assert not durable.preallocate(descriptor, 0)
    finally:
        os.close(descriptor)


class OtherLibc:
    """Answers every fallocate with one error."""

    def __init__(self, code: int) -> None:
        self.code = code

    def fallocate64(self, *_arguments: object) -> int:
        ctypes.set_errno(self.code)
        return -1


def test_preallocation_without_room_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_LIBC", OtherLibc(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        durable.preallocate(0, 1)


def test_a_filesystem_that_cannot_preallocate_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_LIBC", OtherLibc(errno.EOPNOTSUPP))
    assert not durable.preallocate(0, 1)


@pytest.mark.parametrize("refusal", [None, errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_range_is_copied_to_its_place_whether_or_not_the_kernel_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int | None
) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "source").write_bytes(content)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)

    def refuse(*_: object) -> int:
        raise OSError(refusal, "not here")

    if refusal is not None:
        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    try:
        durable.copy_range(source, target, 1000, 1_500_000)
        assert os.pread(target, 1_500_000, 1000) == content[1000:1_501_000]
        assert os.pread(target, 1000, 0) == bytes(1000)
        durable.copy_range(source, target, len(content) - 10, 20)
        assert os.fstat(target).st_size == len(content), "the source ends there"
        monkeypatch.setattr(os, "copy_file_range", lambda *_: os.open("/nowhere/at/all", 0), raising=False)
        with pytest.raises(OSError, match="No such file"):
            durable.copy_range(source, target, 0, 10)
    finally:
        os.close(source)
        os.close(target)
