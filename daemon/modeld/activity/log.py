"""The durable log: NDJSON, written by a thread of its own, rotated before a write that would pass its size.

The event loop never waits for the disk: it appends to a bounded queue. (A write on the loop would be cheaper on a good
day, 2 µs against 15 for the hop, and stop everything on a bad one.) When the disk fails or is full the daemon goes on:
the writer tries again, and counts as lost what does not fit into the queue meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import threading
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from modeld.activity import shares
from modeld.activity.generations import Replay, close_all, last_record, names, open_one, open_to_read
from modelwire.errors import Internal, NoSpace, PermissionDenied, WireError

MAX_BYTES = 16 * 1024 * 1024
KEEP = 3

QUEUED_MAX = 10_000
"""About 3 MiB, or twenty seconds of the busiest daemon, before a disk that hangs costs records."""

WRITE_BYTES = 1024 * 1024

RETRY_SECONDS = 1.0

CLOSE_SECONDS = 5.0
"""A disk that hangs must not keep the daemon from ending."""


@dataclass(slots=True)
class _Waiter:
    seq: int
    durable: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[bool]


class Log:
    """Call `append` from one thread only, usually the event loop's."""

    def __init__(
        self,
        path: str,
        descriptor: int,
        *,
        max_bytes: int,
        keep: int,
        last_seq: int,
        torn: bool,
        user_of: shares.UserOf,
    ) -> None:
        self.path = path
        self.last_seq = last_seq
        """The number of the newest record in the files when they were opened."""
        self.lost = 0
        self.last_error: str | None = None
        self._max_bytes = max_bytes
        self._keep = keep
        self._user_of = user_of
        self._descriptor = descriptor
        self._torn = torn
        self._written = self._synced = last_seq
        self._doubtful = 0
        self._directory_synced = False
        self._queue: deque[tuple[int, bytes]] = deque()
        self._waiters: list[_Waiter] = []
        self._changed = threading.Condition()
        self._rotating = threading.Lock()
        self._idle = False
        self._failing = False
        self._closing = False
        self._writer = threading.Thread(target=self._run, name="activity log", daemon=True)
        self._writer.start()

    @classmethod
    def open(
        cls, path: str, *, max_bytes: int = MAX_BYTES, keep: int = KEEP, user_of: shares.UserOf = lambda uid: uid
    ) -> Log:
        """Opens the log. Blocks. Raises a WireError that names the path if the directory cannot be written or the disk
        is full."""
        path = os.path.abspath(path)
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            descriptor = _open(path)
            try:
                _refuse_when_full(descriptor)
                last_seq = _newest_seq(path, keep)
                torn = _complete_last_line(descriptor)
            except BaseException:  # whatever stops it, no descriptor is leaked
                os.close(descriptor)
                raise
        except OSError as error:
            raise _open_error(error, path) from error
        return cls(path, descriptor, max_bytes=max_bytes, keep=keep, last_seq=last_seq, torn=torn, user_of=user_of)

    def append(self, seq: int, line: bytes) -> None:
        """Queues a line with its newline. Never blocks or fails; counts a line that does not fit as lost."""
        with self._changed:
            if self._closing or len(self._queue) >= QUEUED_MAX:
                self.lost += 1
                return
            self._queue.append((seq, line))
            if self._idle:
                self._idle = False
                self._changed.notify()

    async def written(self, seq: int, *, durable: bool) -> bool:
        """Waits until the writer has tried everything up to `seq`. Reports whether it is in the file,
        and on the disk if `durable`."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(seq, durable, loop, loop.create_future())
        with self._changed:
            if self._closing or self._reached(seq, durable=durable):
                return self._reached(seq, durable=durable)
            self._waiters.append(waiter)
            self._idle = False
            self._changed.notify()
        return await waiter.future

    def replay(self, since: int) -> Replay:
        """The records in the files after `since`, as of now. Blocks."""
        with self._rotating:
            descriptors = open_to_read(self.path, self._keep)
        return Replay(descriptors, since)

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Writes and syncs what is queued. Blocks until the timeout at most. Idempotent."""
        with self._changed:
            self._closing = True
            self._idle = False
            self._changed.notify()
        self._writer.join(timeout)

    def _run(self) -> None:
        """The writer thread. It survives every error: without it waiters would wait for ever."""
        closing = False
        while not closing:
            batch, waiters, closing = self._take()
            self._attempt(batch, durable=closing or any(waiter.durable for waiter in waiters))
            self._answer(waiters)
        self.lost += len(self._queue)
        os.close(self._descriptor)

    def _take(self) -> tuple[deque[tuple[int, bytes]], list[_Waiter], bool]:
        with self._changed:
            while not (self._waiters or self._closing):
                if self._queue and not self._failing:
                    break
                self._idle = not self._failing
                # The writer wakes by itself only while writes fail: an idle daemon does not wake up.
                if not self._changed.wait(RETRY_SECONDS if self._failing else None):
                    break
            self._idle = False
            batch, self._queue = self._queue, deque()
            waiters, self._waiters = self._waiters, []
            return batch, waiters, self._closing

    def _attempt(self, batch: deque[tuple[int, bytes]], *, durable: bool) -> None:
        try:
            self._write(batch)
            if durable:
                self._sync()
        except Exception as error:  # noqa: BLE001 - reported by `last_error`; the lines are kept and tried again
            self._failing = True
            self.last_error = f"{self.path}: {getattr(error, 'strerror', None) or error}"
            with self._changed:
                # In front of the lines that came meanwhile, so that numbers only increase in the file.
                self._queue.extendleft(reversed(batch))
        else:
            self._failing = False

    def _answer(self, waiters: list[_Waiter]) -> None:
        for waiter in waiters:
            reached = self._reached(waiter.seq, durable=waiter.durable)
            # A loop that has ended has no waiters left.
            with contextlib.suppress(RuntimeError):
                waiter.loop.call_soon_threadsafe(_resolve, waiter.future, reached)

    def _reached(self, seq: int, *, durable: bool) -> bool:
        return self._doubtful < seq <= self._synced if durable else seq <= self._written

    def _write(self, lines: deque[tuple[int, bytes]]) -> None:
        """Removes lines from the batch as they reach the file; after an error the rest is still there."""
        while lines:
            size = self._size_of_current()
            room = min(WRITE_BYTES, self._max_bytes - size)
            chunk = bytearray(b"\n" if self._torn else b"")
            for _, line in lines:
                if len(chunk) + len(line) > room:
                    break
                chunk += line
            if len(chunk) <= 1:
                if size == 0:
                    chunk += lines[0][1]
                else:
                    self._rotate()
                    continue
            done = os.write(self._descriptor, chunk)
            if self._torn and done:
                self._torn = False
                done -= 1
            while lines and done >= len(lines[0][1]):
                seq, line = lines.popleft()
                done -= len(line)
                self._written = seq
            # Part of a line reached the file: end it there, and write the line again as a whole.
            self._torn = self._torn or done > 0

    def _size_of_current(self) -> int:
        status = os.fstat(self._descriptor)
        if not _leads_to(self.path, status):
            # Another program removed or rotated the file: writing on would lose every line without a trace.
            self._sync()
            replacement = _open(self.path)
            os.close(self._descriptor)
            self._descriptor, self._torn, self._directory_synced = replacement, False, False
            return os.fstat(self._descriptor).st_size
        return status.st_size

    def _rotate(self) -> None:
        """Creates the new file before an old one moves: when that fails, nothing has changed."""
        self._sync()
        fresh = f"{self.path}.new"
        replacement = _open_anew(fresh)
        try:
            moves = list(reversed(list(pairwise(names(self.path, self._keep)))))
            if moves and (merged := self._merge_oldest(*moves[0])) is not None:
                moves[0] = merged, moves[0][1]
            with self._rotating:
                for source, target in moves:
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(source, target)
                os.rename(fresh, self.path)
        except BaseException:  # the old file stays in use, the new one must not leak
            os.close(replacement)
            raise
        os.close(self._descriptor)
        self._descriptor, self._torn, self._directory_synced = replacement, False, False

    def _merge_oldest(self, source: str, target: str) -> str | None:
        """Both files in one, as `shares` says. None when only one of them is there, or the disk has no room for a
        third: then the oldest lines go, whoever they are about."""
        merged = f"{target}.new"
        with contextlib.ExitStack() as opened:
            try:
                older = open_one(target)
                opened.callback(os.close, older)
                newer = open_one(source)
                opened.callback(os.close, newer)
                both = _open_anew(merged)
                opened.callback(os.close, both)
                shares.merge(older, newer, both, self._max_bytes, self._user_of)
            except OSError:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(merged)
                return None
        return merged

    def _sync(self) -> None:
        if self._synced < self._written:
            try:
                os.fsync(self._descriptor)
            except OSError:
                # The kernel may have dropped the pages: a later fsync does not cover them.
                self._doubtful = self._written
                raise
            finally:
                self._synced = self._written
        if not self._directory_synced:
            _sync_directory(os.path.dirname(self.path))
            self._directory_synced = True


def _resolve(future: asyncio.Future[bool], reached: bool) -> None:
    if not future.done():
        future.set_result(reached)


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o600)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    if status.st_mode & 0o077:
        # Best effort: only the owner of a file can change its mode.
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, 0o600)
    return descriptor


def _open_anew(path: str) -> int:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return _open(path)


def _leads_to(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), status)
    except FileNotFoundError:
        return False


def _newest_seq(path: str, keep: int) -> int:
    descriptors = open_to_read(path, keep)
    try:
        for descriptor in reversed(descriptors):
            if record := last_record(descriptor):
                return record.seq
        return 0
    finally:
        close_all(descriptors)


def _complete_last_line(descriptor: int) -> bool:
    """Ends a line that a crash tore, so that the next record is not merged into it. Reports
    whether the newline is still to be written."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return False
    return os.write(descriptor, b"\n") == 0


def _refuse_when_full(descriptor: int) -> None:
    space = os.fstatvfs(descriptor)
    free = space.f_bfree if os.geteuid() == 0 else space.f_bavail
    if space.f_blocks and not free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_error(error: OSError, path: str) -> WireError:
    what = f"the activity log {path} cannot be written: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(what, hint="Free some space there, or set state_dir to another disk.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.EMLINK, errno.ENOTDIR, errno.EEXIST):
        return PermissionDenied(what, hint="Set state_dir to a directory that the daemon's user can write to.")
    return Internal(what, hint="Check that directory, or set state_dir to another one.")
