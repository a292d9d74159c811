"""Each step does what the recipe counts on, and each failure says what it means to a client."""

from __future__ import annotations

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


def test_an_error_of_the_disk_is_reported_in_clear_words() -> None:
    error = on_store(OSError(errno.EIO, "Input/output error"))
    assert "the disk under the store reported an error" in error.message
    assert not error.retryable


def test_other_exceptions_pass() -> None:
    with pytest.raises(ZeroDivisionError), durable.store_faults("write to", "/x"):
        raise ZeroDivisionError
    with pytest.raises(errors.NoSpace), durable.source_faults("/x"), durable.store_faults("write to", "/x"):
        raise OSError(errno.ENOSPC, "full")
