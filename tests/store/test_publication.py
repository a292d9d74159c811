"""The whole way of a file into the store, with each system call on it failing once, and killed at each.

Whatever fails: nothing torn under a published name, no temporary left, an error of the wire, and the same
request succeeds afterwards. The calls are counted in `durable`, the one module that makes them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from modeld.store import durable
from modeld.store.batch import Batch
from modeld.store.blobs import Blob, commit
from modeld.store.digest import Digest
from modeld.store.hashing import CHUNK
from modeld.store.ingest import stage_copy
from modeld.store.layout import Layout
from modeld.store.observer import Unwatched
from modeld.store.space import Space
from modelwire.errors import WireError

SMALL, BIG = 16 * 1024, CHUNK + 4097
COUNTED = {
    *("open", "close", "pwritev", "preadv", "posix_fadvise", "fchmod", "fchown", "fsync", "mkdir", "chmod"),
    *("link", "unlink", "replace", "stat", "fstat"),
}
COUNTED_IN_LIBC = {"fallocate64", "fallocate", "renameat2", "syncfs"}
MANY = 9
"""Enough for a batch to sync them together."""


class Faults:
    """Calls `strike` at the n-th counted call, and at all that follow when `lasting`."""

    def __init__(self, nth: int, strike: Callable[[str], None], *, lasting: bool = False) -> None:
        self.nth, self.strike, self.lasting = nth, strike, lasting
        self.count = 0
        self.struck: list[str] = []

    def __call__(self, name: str) -> None:
        self.count += 1
        if self.count == self.nth or (self.lasting and self.count > self.nth):
            self.struck.append(name)
            self.strike(name)


class FaultyOs:
    """Stands where `durable` sees the module os."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name not in COUNTED:
            return real

        def call(*arguments: object, **named: object) -> object:
            if name == "close":
                # A close that reports an error has closed nonetheless.
                real(*arguments)
                self._faults(name)
                return None
            self._faults(name)
            return real(*arguments, **named)

        return call


class FaultyLibc:
    def __init__(self, real: ctypes.CDLL, faults: Faults) -> None:
        self._real, self._faults = real, faults

    def __getattr__(self, name: str) -> object:
        real = getattr(self._real, name)
        if name not in COUNTED_IN_LIBC:
            return real

        def call(*arguments: object) -> object:
            try:
                self._faults(name)
            except OSError as error:
                ctypes.set_errno(error.errno or 0)
                return -1
            return real(*arguments)

        return call


def plant_faults(monkeypatch: pytest.MonkeyPatch, faults: Faults) -> None:
    monkeypatch.setattr(durable, "os", FaultyOs(faults))
    monkeypatch.setattr(durable, "_LIBC", FaultyLibc(durable._LIBC, faults))


class Adding:
    """One request: this source into this store."""

    def __init__(self, directory: Path, size: int = SMALL) -> None:
        self.layout = Layout(str(directory / "root"))
        os.makedirs(self.layout.blobs_dir, exist_ok=True)
        self.space = Space(lambda: 1 << 40)
        self.source = str(directory / "source")
        if not os.path.exists(self.source):
            Path(self.source).write_bytes(os.urandom(size))
        self.content = Path(self.source).read_bytes()
        self.digest = Digest(hashlib.sha256(self.content).hexdigest())

    def run(self, expected: Digest | None = None) -> tuple[Blob, bool]:
        with open(self.source, "rb") as file:
            staged = stage_copy(
                self.layout,
                file.fileno(),
                self.source,
                expected=expected,
                space=self.space,
                observer=Unwatched(),
            )
        return commit(self.layout, staged)

    def run_many(self) -> list[tuple[Blob, bool]]:
        """The content and others made of it, as a batch."""
        with Batch(self.layout, space=self.space, observer=Unwatched()) as batch:
            for index in range(MANY):
                path = f"{self.source}-{index}"
                Path(path).write_bytes(self.content[index:])
                with open(path, "rb") as file:
                    batch.stage(file.fileno(), path)
            return batch.commit()

    @property
    def name(self) -> Path:
        return Path(self.layout.blob(self.digest))

    def plant(self, content: bytes) -> None:
        os.makedirs(self.name.parent)
        self.name.write_bytes(content)

    def assert_whole_or_absent(self, *others: bytes) -> None:
        if self.name.exists():
            assert self.name.read_bytes() in (self.content, *others)

    def assert_added(self) -> None:
        blob, _reused = self.run()
        assert Path(blob.path).read_bytes() == self.content
        assert self.temporaries() == []

    def temporaries(self) -> list[str]:
        return os.listdir(self.layout.staging) if os.path.isdir(self.layout.staging) else []


def empty_store(_adding: Adding) -> tuple[bytes, ...]:
    return ()


def good_blob_of_another_tool(adding: Adding) -> tuple[bytes, ...]:
    adding.plant(adding.content)
    return ()


def bad_blob(adding: Adding) -> tuple[bytes, ...]:
    adding.plant(b"bad")
    return (b"bad",)


def sweep(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    for nth in range(1, 500):
        directory = tmp_path / str(nth)
        directory.mkdir()
        yield nth, directory
    pytest.fail("the sweep has no end")


@pytest.mark.parametrize("before", [empty_store, good_blob_of_another_tool, bad_blob])
@pytest.mark.parametrize(
    ("size", "code"),
    [(SMALL, errno.EIO), (SMALL, errno.ENOSPC), (SMALL, errno.EDQUOT), (SMALL, errno.EROFS), (BIG, errno.EIO)],
)
def test_each_call_fails_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    before: Callable[[Adding], tuple[bytes, ...]],
    code: int,
) -> None:
    def strike(_name: str) -> None:
        raise OSError(code, os.strerror(code))

    kinds: set[str] = set()
    for nth, directory in sweep(tmp_path):
        adding, faults = Adding(directory, size), Faults(nth, strike)
        planted = before(adding)
        descriptors = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patched:
            plant_faults(patched, faults)
            try:
                blob, _reused = adding.run()
            except WireError:
                pass
            else:
                # Advice that was refused, a fallback, or a temporary that went another way: all is well.
                assert Path(blob.path).read_bytes() == adding.content
        adding.assert_whole_or_absent(*planted)
        kinds.update(faults.struck)
        if not faults.struck:
            break
        assert adding.space.promised == 0, faults.struck
        assert len(os.listdir("/proc/self/fd")) == descriptors, faults.struck
        if faults.struck != ["unlink"]:
            assert adding.temporaries() == [], faults.struck
        for left in adding.temporaries():
            os.unlink(os.path.join(adding.layout.staging, left))
        adding.assert_added()
    assert kinds >= {"open", "close", "pwritev", "preadv", "fchmod", "fsync", "stat", "mkdir"}
    assert kinds & {"renameat2", "link"}


@pytest.mark.parametrize("size", [SMALL, BIG])
def test_the_disk_dies_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """From the n-th call on nothing works: then a temporary may stay, for the next start to find."""

    def strike(_name: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for nth, directory in sweep(tmp_path):
        adding, faults = Adding(directory, size), Faults(nth, strike, lasting=True)
        with monkeypatch.context() as patched:
            plant_faults(patched, faults)
            with contextlib.suppress(WireError):
                adding.run()
        adding.assert_whole_or_absent()
        assert adding.space.promised == 0
        if not faults.struck:
            break
        for left in adding.temporaries():
            os.unlink(os.path.join(adding.layout.staging, left))
        adding.assert_added()


@pytest.mark.parametrize("together", [True, False])
def test_each_call_of_a_batch_fails_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    monkeypatch.setattr(durable, "_dirty_bytes", lambda: 0 if together else durable.MAX_FOREIGN_DIRTY + 1)

    def strike(_name: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    kinds: set[str] = set()
    for nth, directory in sweep(tmp_path):
        adding, faults = Adding(directory), Faults(nth, strike)
        descriptors = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patched:
            plant_faults(patched, faults)
            with contextlib.suppress(WireError):
                assert len(adding.run_many()) == MANY
        adding.assert_whole_or_absent()
        kinds.update(faults.struck)
        if not faults.struck:
            break
        assert adding.space.promised == 0, faults.struck
        assert len(os.listdir("/proc/self/fd")) == descriptors, faults.struck
        if faults.struck != ["unlink"]:
            assert adding.temporaries() == [], faults.struck
        assert [Path(blob.path).read_bytes() for blob, _reused in adding.run_many()] == [
            adding.content[index:] for index in range(MANY)
        ]
    assert ("fsync" in kinds) != together
    assert ("syncfs" in kinds) == together


def test_a_failed_sync_is_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adding, synced = Adding(tmp_path), []

    def fail(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        raise OSError(errno.EIO, "lost page")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(WireError, match="make durable"):
            adding.run()
    assert len(synced) == 1
    assert not adding.name.exists()
    assert adding.temporaries() == []


def run_alone(directory: Path, *extra: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """This file as a program: one add in a process of its own."""
    return subprocess.run(
        [*prefix, sys.executable, __file__, str(directory), *extra],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def kill_at(directory: Path, nth: int) -> None:
    """In a process of its own: dies at the n-th call as a killed one does, nothing is cleaned up."""
    patch = pytest.MonkeyPatch()
    plant_faults(patch, Faults(nth, lambda _name: os._exit(137)))
    Adding(directory).run()


@pytest.mark.parametrize("size", [SMALL, BIG])
def test_killed_at_each_call(tmp_path: Path, size: int) -> None:
    for nth, directory in sweep(tmp_path):
        adding = Adding(directory, size)
        outcome = run_alone(directory, "kill", str(nth))
        assert outcome.returncode in (0, 137), outcome.stderr
        adding.assert_whole_or_absent()
        if outcome.returncode == 0:
            break
        assert len(adding.temporaries()) <= 1
        for left in adding.temporaries():
            os.unlink(os.path.join(adding.layout.staging, left))
        adding.assert_added()
    assert nth > 10


CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += 0$")
UNFINISHED = re.compile(r"^(\d+) +(.*?) *<unfinished \.\.\.>$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
PATH_OF_DESCRIPTOR = re.compile(r"^\d+<(.*)>$")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def finished_calls(log: str) -> Iterator[str]:
    """One line for each call, where it ended: strace splits those that other threads interrupt."""
    begun: dict[str, str] = {}
    for line in log.splitlines():
        if (split := UNFINISHED.match(line)) is not None:
            begun[split[1]] = split[2]
        elif (resumed := RESUMED.match(line)) is not None:
            yield f"{resumed[1]} {begun.pop(resumed[1])}{resumed[2]}"
        else:
            yield line


def order_faults(log: str, layout: Layout) -> list[str]:
    """What an strace log says against the order: sync the file, name it, sync the directories."""
    synced: dict[str, int] = {}
    all_synced = 0
    named: dict[str, int] = {}
    faults = []
    for number, line in enumerate(finished_calls(log), 1):
        if (match := CALL.match(line)) is None:
            continue
        call, arguments = match.groups()
        if call in ("fsync", "fdatasync") and (path := PATH_OF_DESCRIPTOR.match(arguments)):
            synced[path[1]] = number
        elif call == "syncfs":
            all_synced = number
        elif call in ("renameat2", "rename", "renameat", "link", "linkat"):
            source, target = QUOTED.findall(arguments)
            if target.startswith(layout.blobs_dir):
                named[target] = number
                if source not in synced and not all_synced:
                    faults.append(f"{target} got its name before its bytes were synced")
    for target, number in named.items():
        directory = os.path.dirname(target)
        while len(directory) >= len(layout.blobs_dir):
            if max(all_synced, synced.get(directory, 0)) < number:
                faults.append(f"{directory} was not synced after {target} got its name")
            directory = os.path.dirname(directory)
    if not named:
        faults.append("nothing was named")
    return faults


def test_split_lines_of_a_log_are_joined() -> None:
    log = "7 fsync(3</a> <unfinished ...>\n8 +++ exited with 0 +++\n7 <... fsync resumed>) = 0\n7 fsync(4</b>) = 0"
    assert [CALL.match(line) is not None for line in finished_calls(log)] == [False, True, True]


@pytest.fixture
def strace() -> tuple[str, ...]:
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run([found, "-o", os.devnull, "true"], capture_output=True, timeout=60, check=False)
    if probe.returncode != 0:
        pytest.skip("this machine does not let strace trace")
    return found, "-f", "-y", "-s", "4096", "-e", "trace=fsync,fdatasync,syncfs,rename,renameat,renameat2,link,linkat"


@pytest.mark.parametrize(("size", "mode"), [(0, "one"), (SMALL, "one"), (BIG, "one"), (SMALL, "many")])
def test_every_naming_stands_between_two_syncs(tmp_path: Path, strace: tuple[str, ...], size: int, mode: str) -> None:
    adding, log = Adding(tmp_path, size), tmp_path / "log"
    outcome = run_alone(tmp_path, mode, prefix=(*strace, "-o", str(log)))
    assert outcome.returncode == 0, outcome.stderr
    assert order_faults(log.read_text(), adding.layout) == []


@pytest.mark.parametrize(
    ("without", "complaint"),
    [("sync_file", "before its bytes were synced"), ("sync_directory", "was not synced after")],
)
def test_the_order_check_notices_a_missing_sync(
    tmp_path: Path, strace: tuple[str, ...], without: str, complaint: str
) -> None:
    adding, log = Adding(tmp_path), tmp_path / "log"
    outcome = run_alone(tmp_path, "without", without, prefix=(*strace, "-o", str(log)))
    assert outcome.returncode == 0, outcome.stderr
    assert any(complaint in fault for fault in order_faults(log.read_text(), adding.layout))


def main(directory: str, mode: str = "one", argument: str = "") -> None:
    if mode == "kill":
        kill_at(Path(directory), int(argument))
        return
    module: ModuleType = durable
    if mode == "without":
        setattr(module, argument, lambda _what: None)
    if mode == "many":
        Adding(Path(directory)).run_many()
        return
    Adding(Path(directory)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
