"""Each step does what the recipe counts on, and each failure says what it means to a client."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from modeld.store.disk import durable
from modelwire import errors
from modelwire.errors import WireError

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs a group that is not the daemon's")


@pytest.fixture(params=["exclusive rename", "link"])
def naming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to give a name: filesystems without the rename get a link."""
    if request.param == "link":

        def absent(_source: str, _target: str) -> None:
            return None

        monkeypatch.setattr(durable, "_rename_exclusive", absent)


def test_a_new_file_is_private_and_never_one_that_is_there(tmp_path: Path) -> None:
    path = str(tmp_path / "new")
    os.close(durable.create_file(path))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with pytest.raises(FileExistsError):
        durable.create_file(path)
    os.symlink(tmp_path / "elsewhere", tmp_path / "link")
    with pytest.raises(FileExistsError):
        durable.create_file(str(tmp_path / "link"))
    assert not (tmp_path / "elsewhere").exists()


def test_short_writes_and_reads_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwritev, preadv = os.pwritev, os.preadv

    def write_few(descriptor: int, data: list[memoryview], *rest: int) -> int:
        return pwritev(descriptor, [data[0][:3]], *rest)

    def read_few(descriptor: int, into: list[memoryview], *rest: int) -> int:
        return preadv(descriptor, [into[0][:3]], *rest)

    monkeypatch.setattr(os, "pwritev", write_few)
    monkeypatch.setattr(os, "preadv", read_few)
    descriptor = durable.create_file(str(tmp_path / "file"))
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


def test_directories_are_made_up_to_the_root_and_not_above(tmp_path: Path) -> None:
    below = str(tmp_path / "root")
    with pytest.raises(FileNotFoundError):
        durable.make_directories(f"{tmp_path}/other/a", below=str(tmp_path / "other" / "a"))
    durable.make_directories(f"{below}/a/b/c", below=below)
    durable.make_directories(f"{below}/a/b/c", below=below)
    assert (tmp_path / "root" / "a" / "b" / "c").is_dir()


@root_only
def test_a_group_shares_the_store(tmp_path: Path) -> None:
    shared = tmp_path / "blobs"
    shared.mkdir()
    os.chown(shared, -1, 64_003)
    shared.chmod(0o2775)
    before = os.umask(0o077)
    try:
        durable.make_directories(str(shared / "aa" / "bb"), below=str(tmp_path))
    finally:
        os.umask(before)
    for made in (shared / "aa", shared / "aa" / "bb"):
        assert made.stat().st_gid == 64_003
        assert stat.S_IMODE(made.stat().st_mode) == 0o2775
    descriptor = durable.create_file(str(tmp_path / "file"))
    try:
        durable.share_with_group_of(str(shared), descriptor)
        assert os.fstat(descriptor).st_gid == 64_003
    finally:
        os.close(descriptor)


def test_without_a_shared_group_nothing_changes(tmp_path: Path) -> None:
    descriptor = durable.create_file(str(tmp_path / "file"))
    try:
        before = os.fstat(descriptor).st_ctime_ns
        durable.share_with_group_of(str(tmp_path), descriptor)
        assert os.fstat(descriptor).st_ctime_ns == before
    finally:
        os.close(descriptor)


def test_room_is_taken_without_content(tmp_path: Path) -> None:
    descriptor = durable.create_file(str(tmp_path / "file"))
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


def test_removing_what_is_gone_is_fine(tmp_path: Path) -> None:
    durable.remove(str(tmp_path / "absent"))


Fault = Callable[[OSError], WireError]


def on_store(error: OSError) -> WireError:
    return durable.store_fault(error, "write to", "/store/x")


def on_source(error: OSError) -> WireError:
    return durable.source_fault(error, "/source/x")


@pytest.mark.parametrize(
    ("fault", "code", "expected"),
    [
        (on_store, errno.ENOSPC, errors.NoSpace),
        (on_store, errno.EDQUOT, errors.QuotaExceeded),
        (on_store, errno.EROFS, errors.PermissionDenied),
        (on_store, errno.EACCES, errors.PermissionDenied),
        (on_store, errno.EPERM, errors.PermissionDenied),
        (on_store, errno.EFBIG, errors.Unsupported),
        (on_store, errno.EIO, errors.Internal),
        (on_store, errno.ENOENT, errors.Internal),
        (on_store, errno.EMFILE, errors.Internal),
        (on_source, errno.ENOENT, errors.SourceNotFound),
        (on_source, errno.ENOTDIR, errors.SourceNotFound),
        (on_source, errno.EACCES, errors.PermissionDenied),
        (on_source, errno.ELOOP, errors.InvalidRequest),
        (on_source, errno.EIO, errors.SourceUnavailable),
        (on_source, errno.ESTALE, errors.SourceUnavailable),
    ],
)
def test_failures_mean_something(fault: Fault, code: int, expected: type[WireError]) -> None:
    error = fault(OSError(code, os.strerror(code)))
    assert type(error) is expected
    assert "/x" in error.message
    assert os.strerror(code) in error.message
    assert error.details["errno"] == errno.errorcode[code]


def test_an_error_of_the_disk_is_told_in_clear_words() -> None:
    error = on_store(OSError(errno.EIO, "Input/output error"))
    assert "the disk under the store reported an error" in error.message
    assert not error.retryable


def test_other_exceptions_pass() -> None:
    with pytest.raises(ZeroDivisionError), durable.store_faults("write to", "/x"):
        raise ZeroDivisionError
    with pytest.raises(errors.NoSpace), durable.source_faults("/x"), durable.store_faults("write to", "/x"):
        raise OSError(errno.ENOSPC, "full")
