"""Reads the header of a file of weights from its descriptor, within bounds of bytes, parts and time.

No byte of a header is trusted: each count and length is checked against the file before it is used. Whatever a file
has, the reader returns or raises one of the two errors here, and holds a window of the file at a time.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Final

MAX_HEADER: Final = 128 << 20
"""Bytes. The largest known vocabularies take 20 MiB, with their merges."""

MAX_PARTS: Final = 4_000_000
"""Strings, fields and tensors together. The largest vocabularies have 300,000 words, in two or three lists."""

MAX_SECONDS: Final = 2.0
"""Of computing, not of waiting for the disk. A vocabulary of 300,000 words takes 0.1 s."""

_WINDOW: Final = 256 << 10
_CHECKED: Final = 4096
"""Parts between two looks at the clock."""


class Unreadable(Exception):
    """The file has no header that the reader knows; the message says why. It says nothing about the file."""


class Truncated(Unreadable):
    """The file ends before its header does. `needed` is how long it must be, as far as that is known."""

    def __init__(self, needed: int = 0) -> None:
        super().__init__("the file ends within its header")
        self.needed = needed


class HeaderBytes:
    """The bytes of a header, from the front of a file of `size` bytes."""

    def __init__(
        self,
        descriptor: int,
        size: int,
        *,
        at: int = 0,
        order: str = "<",
        most_bytes: int = MAX_HEADER,
        most_parts: int = MAX_PARTS,
    ) -> None:
        """From `at` on. `most_bytes` may be taken, which the caller may keep."""
        self.order = order
        self._left = most_bytes
        self._most_parts = most_parts
        self.at = at
        self._descriptor = descriptor
        self._size = size
        self._window = b""
        self._window_at = at
        self._parts = 0
        self._ends = time.thread_time() + MAX_SECONDS

    def take(self, length: int) -> bytes:
        begin = self.at - self._window_at
        self._left -= length
        if self._left < 0:
            raise Unreadable("what is read of its header takes too many bytes")
        if not 0 <= begin <= len(self._window) - length:
            self._read(length)
            begin = 0
        self.at += length
        return self._window[begin : begin + length]

    def skip(self, length: int) -> None:
        if length > self._size - self.at:
            raise Truncated
        self.at += length

    def number(self, code: str) -> int:
        layout = f"{self.order}{code}"
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def count(self, least: int) -> int:
        """A count of parts that take at least so many bytes each."""
        count = self.number("Q")
        if count > self._most_parts:
            raise self._too_many()
        if count * least > self._size - self.at:
            raise Truncated
        return count

    def length(self) -> int:
        """The length of a string, which follows."""
        length = self.number("Q")
        self.counted(1)
        if length > self._size - self.at:
            raise Truncated
        return length

    def skip_strings(self, count: int) -> None:
        """As `count` times `skip(length())`, for vocabularies."""
        self.counted(count)
        length_in = struct.Struct(f"{self.order}Q").unpack_from
        while count:
            self._read(8)
            window, at = self._window, 0
            last = len(window) - 8
            while at <= last and count:
                at += 8 + length_in(window, at)[0]
                count -= 1
            self.skip(at)

    def _read(self, length: int) -> None:
        if length > self._size - self.at:
            raise Truncated
        if self.at + length > MAX_HEADER:
            raise Unreadable(f"its header has more than {MAX_HEADER >> 20} MiB")
        self._check_time()
        self._window = os.pread(self._descriptor, max(length, _WINDOW), self.at)
        self._window_at = self.at
        if len(self._window) < length:
            raise Truncated

    def counted(self, parts: int) -> None:
        """Raises when the header has too many parts by now."""
        before, self._parts = self._parts, self._parts + parts
        if self._parts > self._most_parts:
            raise self._too_many()
        if before // _CHECKED != self._parts // _CHECKED:
            self._check_time()

    def _too_many(self) -> Unreadable:
        return Unreadable(f"what is read of its header has more than {self._most_parts} parts")

    def _check_time(self) -> None:
        if time.thread_time() > self._ends:
            raise Unreadable(f"its header takes more than {MAX_SECONDS:g} s to read")
