"""The log's files: the current one and the older generations, read in order, safely against rotation.

A reader opens all files at once, under the lock that a rotation holds. From then on the descriptors show the same
bytes, whatever the names of the files.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import msgspec

from modeld.activity.record import Recorded

BATCH_BYTES = 256 * 1024
"""Bytes of one read: about a thousand records, which keep the interpreter for a millisecond."""

LINE_BYTES = 64 * 1024
"""No record is longer, see `encode`; so each block of twice this size holds a whole line."""


class _Head(msgspec.Struct):
    seq: int
    event: str
    job: str | None = None
    model: str | None = None


_HEAD = msgspec.json.Decoder(_Head)


def read_line(line: bytes) -> Recorded | None:
    """Returns None for a damaged line: half of one, a foreign one, one with changed bytes."""
    try:
        head = _HEAD.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Recorded(head.seq, head.event, head.job, head.model, line, line[1:] + b"\n")


def names(path: str, keep: int) -> list[str]:
    """The paths of the files, the newest first."""
    return [path, *(f"{path}.{number}" for number in range(1, keep + 1))]


def open_to_read(path: str, keep: int) -> list[int]:
    """Returns descriptors, the oldest file first. The caller holds the lock against rotation, and closes them."""
    descriptors: list[int] = []
    try:
        for name in reversed(names(path, keep)):
            with contextlib.suppress(FileNotFoundError):
                descriptors.append(open_one(name))
    except BaseException:  # whatever stops it, no descriptor is leaked
        close_all(descriptors)
        raise
    return descriptors


def open_one(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def first_after(descriptor: int, offset: int) -> tuple[int, Recorded] | None:
    """The first sound line that begins at or after an offset, and where it begins."""
    position, carry = offset, b""
    # From the middle of a line its rest is skipped; a line that begins exactly here has a newline before it.
    skipping = offset > 0 and os.pread(descriptor, 1, offset - 1) != b"\n"
    while block := os.pread(descriptor, 2 * LINE_BYTES, position + len(carry)):
        *lines, carry = (carry + block).split(b"\n")
        for line in lines:
            if not skipping and (record := read_line(line)):
                return position, record
            skipping = False
            position += len(line) + 1
        if len(carry) > 2 * LINE_BYTES:
            # Not a line of this log, however long it goes on.
            position, carry, skipping = position + len(carry), b"", True
    return None


def last_record(descriptor: int) -> Recorded | None:
    """The last sound line, also if it lacks its newline. Reads backwards in blocks."""
    end, tail = os.fstat(descriptor).st_size, b""
    while end > 0:
        start = max(0, end - 2 * LINE_BYTES)
        tail = os.pread(descriptor, end - start, start) + tail
        first, *lines = tail.split(b"\n")
        for line in reversed(lines):
            if record := read_line(line):
                return record
        if start == 0:
            return read_line(first)
        end, tail = start, first[: 2 * LINE_BYTES]
    return None


def start_of(descriptor: int, since: int) -> int:
    """An offset before all records after `since`, and close to the first of them: numbers only increase in a file."""
    low, high = 0, os.fstat(descriptor).st_size
    while high - low > BATCH_BYTES:
        middle = (low + high) // 2
        found = first_after(descriptor, middle)
        if found is not None and found[1].seq <= since:
            low = found[0]
        else:
            high = middle
    return low


class Replay:
    """The stored records after `since`, in batches. `batch` blocks: call it in a thread. `close` does not block."""

    def __init__(self, descriptors: list[int], since: int) -> None:
        self._reading = threading.Lock()
        self._closing = False
        self._descriptors = descriptors
        self._since = since
        self._offset = 0
        self._carry = b""
        try:
            self._seek()
        except BaseException:  # whatever stops it, no descriptor is leaked
            self.close()
            raise

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """While a thread reads, its descriptors stay open: that thread closes them when it is done."""
        self._closing = True
        if self._reading.acquire(blocking=False):
            close_all(self._descriptors)
            self._reading.release()

    def batch(self) -> list[Recorded]:
        """The next records; an empty list means that there are no more."""
        try:
            with self._reading:
                return self._next()
        finally:
            if self._closing:
                self.close()

    def _next(self) -> list[Recorded]:
        while self._descriptors:
            block = os.pread(self._descriptors[0], BATCH_BYTES, self._offset)
            if not block:
                # A line without its newline is still being written, or was torn and will be reported as a gap.
                os.close(self._descriptors.pop(0))
                self._offset, self._carry = 0, b""
                continue
            self._offset += len(block)
            if found := list(self._records(block)):
                return found
        return []

    def _records(self, block: bytes) -> Iterator[Recorded]:
        *lines, self._carry = (self._carry + block).split(b"\n")
        if len(self._carry) > 2 * LINE_BYTES:
            self._carry = b"?"  # not a line of this log: the rest of it is as damaged as its beginning
        for line in lines:
            record = read_line(line)
            if record is not None and record.seq > self._since:
                self._since = record.seq
                yield record

    def _seek(self) -> None:
        firsts = [first_after(descriptor, 0) for descriptor in self._descriptors]
        # A file can be left out when a newer one begins at or before the first record wanted.
        for number in range(len(firsts) - 1, 0, -1):
            found = firsts[number]
            if found is not None and found[1].seq <= self._since + 1:
                for descriptor in self._descriptors[:number]:
                    os.close(descriptor)
                del self._descriptors[:number]
                break
        if self._descriptors:
            self._offset = start_of(self._descriptors[0], self._since)
