"""The store's locks: the daemon's, held until it ends, and one per name, shared with other tools.

Both are locks of the operating system on an open file: they end with their holder, however it ends, and the files
stay where they are. The error for a lock that is taken names the holder and how long it has held the lock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from modeld.platform import locks
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.disk.root import RootUnusable
from modeld.store.names import ModelName
from modelwire.errors import Internal, InUse
from modelwire.store_root import MAX_HOLDER_BYTES


class Holder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a holder writes into its lock file. It is shown to people. A client that finds no daemon at its own endpoint
    looks for the store's daemon at the `endpoint`, and takes nothing that it reads here for granted."""

    pid: int
    program: str = "modeld"
    endpoint: str | None = None
    since: float | None = None
    """Seconds since the epoch."""

    def describe(self, now: float) -> str:
        at = "" if self.endpoint is None else f", listening on {self.endpoint}"
        held = "" if self.since is None else f", for {_span(now - self.since)}"
        return f"{self.program} with pid {self.pid}{at}{held}"


class StoreLock:
    """One daemon per store, whatever socket it listens on. Taken at start, held until the process ends."""

    def __init__(self, descriptor: int, layout: Layout, endpoint: str | None) -> None:
        self._descriptor = descriptor
        self.layout = layout
        self.endpoint = endpoint
        self._roots, self._files = [os.stat(layout.root)], [os.fstat(descriptor)]
        """With those that take their places, while that happens."""

    @classmethod
    def take(cls, layout: Layout, *, endpoint: str | None = None) -> StoreLock:
        """Takes the lock. `InUse` names the daemon that holds it."""
        path = layout.lock
        try:
            mode = durable.lock_mode(os.path.dirname(path))
            descriptor = locks.take(path, mode=mode, max_content=MAX_HOLDER_BYTES)
        except locks.Held as held:
            raise _store_in_use(layout, held) from None
        except locks.NotAFile:
            raise _no_lock_file(path) from None
        locks.write(descriptor, _words(endpoint))
        return cls(descriptor, layout, endpoint)

    def check_root(self) -> None:
        """For reads, which go on when another program has removed the lock: raises when another directory is at the
        root's path, whose models are not this daemon's to give out."""
        try:
            there = os.stat(self.layout.root)
        except OSError as fault:
            raise durable.store_fault(fault, "look at the store", self.layout.root) from fault
        if not any(os.path.samestat(there, root) for root in self._roots):
            raise self._replaced()

    def check(self) -> None:
        """Call it before each write. Raises when the root is no longer the directory that was locked."""
        try:
            there = os.lstat(self.layout.lock)
        except OSError as fault:
            raise durable.store_fault(fault, "look at the store's lock", self.layout.lock) from fault
        if not any(os.path.samestat(there, held) for held in self._files):
            raise self._replaced()

    def expect(self, other: StoreLock | None) -> None:
        """From now on the directory of the other lock may be at the root's path; with None no longer."""
        self._roots[1:] = [] if other is None else other._roots
        self._files[1:] = [] if other is None else other._files

    def become(self, other: StoreLock) -> None:
        """The directory of the other lock is at the root's path for good. Releases the lock of the earlier one."""
        before, self._descriptor = self._descriptor, other._descriptor
        self._roots, self._files = other._roots, other._files
        other._descriptor = -1
        locks.release(before)

    def _replaced(self) -> Internal:
        return Internal(
            f"the store at {self.layout.root} is not the store that this daemon has locked: it is left as it is",
            hint="Mount it or move it back, or restart the daemon.",
            retryable=True,
        )

    def close(self) -> None:
        """Releases the lock. The file stays: removing it would let two daemons lock two files of one name."""
        if self._descriptor >= 0:
            locks.release(self._descriptor)
            self._descriptor = -1


def _no_lock_file(path: str) -> RootUnusable:
    return RootUnusable(
        f"{path} is not a regular file, so it cannot be the store's lock",
        hint="modeld makes only a regular file there: find out which program made this, and remove it.",
    )


def _store_in_use(layout: Layout, held: locks.Held) -> InUse:
    holder = _holder_of(held.content, held.status)
    who = "another daemon" if holder is None else holder.describe(time.time())
    return InUse(
        f"the store at {layout.root} is in use by {who}",
        hint="Use that daemon, stop it, or give this one a store of its own with models_home.",
        details={"store": layout.root, **_known(holder)},
    )


class NameLock:
    """The lock of one name among all tools that share the store."""

    def __init__(self, lock: FileLock, descriptors: Sequence[int]) -> None:
        self._lock = lock
        self._descriptors = descriptors

    @classmethod
    def take(cls, path: str) -> NameLock | None:
        """Blocking, but never waits: None when another program holds it."""
        held: list[int] = []
        # Taken on one thread and released on another: not thread_local. A soft lock outlives its dead holder.
        with durable.store_faults("lock", path):
            directory = os.path.dirname(path)
            if not os.path.isdir(directory):  # removed while the daemon runs; the lock's own class heeds the umask
                durable.make_directory(directory)
            mode = durable.lock_mode(directory)
            lock = FileLock(path, mode=mode, thread_local=False, fallback_to_soft=False, on_acquired=held.append)
            try:
                lock.acquire(timeout=0)
            except Timeout:  # an OSError too, so it must not get out of here
                return None
            except OSError as fault:
                # A full disk, perhaps without a free inode. No program holds the lock when there is no file to lock,
                # and what needs space fails later; a removal makes space.
                if fault.errno not in (errno.ENOSPC, errno.EDQUOT) or os.path.lexists(path):
                    raise
        for descriptor in held:
            locks.close_to_others(descriptor, mode)
            locks.write(descriptor, _words())
        return cls(lock, held)

    def release(self) -> None:
        """Blocking. The file stays."""
        for descriptor in self._descriptors:
            locks.clear(descriptor)
        self._lock.release()


def name_in_use(path: str, name: ModelName, waited: float) -> InUse:
    """Blocking: the error for a name whose lock another program keeps."""
    holder = _name_holder(path)
    return InUse(
        f"'{name.text}' is being written by {_called(holder)}; waited {_span(waited)} for {path}",
        hint="Try again when it has finished, or raise [store] lock_wait in the configuration.",
        details={"name": name.text, "lock": path, **_known(holder)},
    )


def name_holder(path: str) -> str:
    """Blocking: what to call the program that holds the lock of a name."""
    return _called(_name_holder(path))


def _name_holder(path: str) -> Holder | None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _holder_of(locks.read(descriptor, MAX_HOLDER_BYTES), os.fstat(descriptor))
        finally:
            os.close(descriptor)
    return None


def _called(holder: Holder | None) -> str:
    return "another program" if holder is None else holder.describe(time.time())


def _known(holder: Holder | None) -> dict[str, Any]:
    return {} if holder is None else msgspec.to_builtins(holder)


def _words(endpoint: str | None = None) -> bytes:
    return msgspec.json.encode(Holder(pid=os.getpid(), since=time.time(), endpoint=endpoint)) + b"\n"


def _holder_of(words: bytes, status: os.stat_result) -> Holder | None:
    """The holder in the file, unless the kernel reports another one: an earlier holder's words stay in the file when
    the present holder writes none."""
    written = None
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
        written = msgspec.json.decode(words, type=Holder)
    owner = locks.owner(status)
    if owner is None or (written is not None and written.pid == owner.pid):
        return written
    return Holder(pid=owner.pid, program=owner.program)


def _span(seconds: float) -> str:
    """A length of time for a message."""
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
