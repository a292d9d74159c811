"""One add in a store of its own, with faults planted in the system calls that the store and the platform make for it.

Also a program: `python publication_rig.py DIRECTORY [kill N | without FUNCTION | many | reported]`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

from modeld.platform import durable as calls
from modeld.progress import FileProgress
from modeld.store.blobs.blobs import Blob
from modeld.store.blobs.hashing import WHOLE
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.ingest.commit import Batch, Committed
from modeld.store.ingest.copying import Source, stage_copy
from modeld.store.ingest.staged import Staged
from modelwire.errors import WireError

SMALL, BIG = 16 * 1024, WHOLE + 4097
COUNTED = {
    *("open", "close", "pwritev", "preadv", "posix_fadvise", "fchmod", "fchown", "fsync", "mkdir", "chmod"),
    *("link", "symlink", "unlink", "rename", "replace", "stat", "fstat"),
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
    """Stands where a module sees the module os."""

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
    for module in (durable, calls):
        monkeypatch.setattr(module, "os", FaultyOs(faults))
    monkeypatch.setattr(calls, "_LIBC", FaultyLibc(calls._LIBC, faults))


def commit(
    layout: Layout, staged: Staged, *, verified: Signature | None = None, progress: FileProgress | None = None
) -> tuple[Blob, bool]:
    """A batch of one: the blob, and whether it was here before."""
    batch = Batch(layout)
    batch.take(staged)
    known = {} if verified is None else {staged.digest: verified}
    return settle_and_commit(batch, known, progress)[staged.digest][:2]


def settle_and_commit(
    batch: Batch, verified: Mapping[Digest, Signature] | None = None, progress: FileProgress | None = None
) -> dict[Digest, Committed]:
    """Both steps of a batch; the blobs that were here before too."""
    try:
        found = batch.settle(verified or {}, progress)
        return {digest: Committed(blob, reused=True) for digest, blob in found.items()} | batch.commit()
    finally:
        batch.discard()


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
        self.comes_late: bytes | None = None
        """What another tool puts under the blob's name right before the first naming."""

    def stage(self, path: str, *, sync: bool = True) -> Staged:
        with open(path, "rb") as file:
            source = Source.of(file.fileno(), path)
            return stage_copy(self.layout, source, space=self.space, progress=FileProgress(), sync=sync)

    def run(self) -> tuple[Blob, bool]:
        staged = self.stage(self.source)
        late, self.comes_late = self.comes_late, None
        if late is None:
            return commit(self.layout, staged)
        batch = Batch(self.layout)
        batch.take(staged)
        try:
            batch.settle({})
            self.plant(late)
            return batch.commit()[self.digest][:2]
        finally:
            batch.discard()

    def run_many(self) -> list[tuple[Blob, bool]]:
        """The content and others made of it, as a batch."""
        batch = Batch(self.layout, MANY)
        try:
            for index in range(MANY):
                path = f"{self.source}-{index}"
                Path(path).write_bytes(self.content[index:])
                batch.take(self.stage(path, sync=batch.syncs_alone(len(self.content))))
            return [committed[:2] for committed in settle_and_commit(batch).values()]
        finally:
            batch.discard()

    @property
    def name(self) -> Path:
        return Path(self.layout.blob(self.digest))

    def plant(self, content: bytes) -> None:
        os.makedirs(self.name.parent, exist_ok=True)
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


def run_alone(directory: Path, *extra: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """One add in a process of its own."""
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
    faults = Faults(nth, lambda _name: os._exit(137))
    vars(durable).update(os=FaultyOs(faults))
    vars(calls).update(os=FaultyOs(faults), _LIBC=FaultyLibc(calls._LIBC, faults))
    Adding(directory).run()


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
    try:
        Adding(Path(directory)).run()
    except WireError as error:
        if mode != "reported":
            raise
        print(error.code)
        sys.exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
