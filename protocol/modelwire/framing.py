"""Bytes to lines, with a hard cap while the bytes arrive.

A line's bytes are counted before anything is parsed: a peer that sends no newline is cut off at the cap, whatever
the transport's own limits. The buffer remembers how far it has searched, so a line that trickles in one byte at a
time costs one look at each byte.
"""

from __future__ import annotations


class LineTooLong(Exception):
    """More bytes than the cap before a newline."""

    def __init__(self, cap: int) -> None:
        super().__init__(f"a line is longer than {cap} bytes")
        self.cap = cap


class LineBuffer:
    """Rules: feed bytes, then take lines until there is none; at the end of all bytes, the rest.

    After `LineTooLong` the buffer cannot be used any more.
    """

    __slots__ = ("_cap", "_data", "_line", "_searched", "_start")

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._data = bytearray()
        self._start = 0
        self._searched = 0
        self._line: bytes | None = None
        """What came, when it was exactly one line and nothing was held: the usual case, kept as it is."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        if self._line is None and not self._data and data and isinstance(data, bytes):
            last = len(data) - 1
            if last <= self._cap and data.find(b"\n") == last:
                self._line = data[:-1]
                return
        self._keep_line()
        self._drop_taken()
        self._data += data

    def take(self) -> bytes | None:
        """The next whole line without its newline, or None while there is none."""
        if self._line is not None:
            line, self._line = self._line, None
            return line
        if not self._data:
            return None
        end = self._data.find(b"\n", self._searched)
        if end < 0:
            self._drop_taken()  # now, not when more bytes come: an idle connection holds nothing
            self._searched = len(self._data)
            if self._searched > self._cap:
                raise LineTooLong(self._cap)
            return None
        if end - self._start > self._cap:
            raise LineTooLong(self._cap)
        line = bytes(self._data[self._start : end])
        self._start = self._searched = end + 1
        return line

    def rest(self) -> bytes:
        """What is left when the peer has ended: an unterminated last line counts as a line."""
        self._keep_line()
        rest = bytes(self._data[self._start :])
        self._data.clear()
        self._start = self._searched = 0
        if len(rest) > self._cap:
            raise LineTooLong(self._cap)
        return rest

    def _keep_line(self) -> None:
        if self._line is not None:
            self._data += self._line + b"\n"
            self._line = None

    def _drop_taken(self) -> None:
        if self._start:
            del self._data[: self._start]
            self._searched -= self._start
            self._start = 0

    def __len__(self) -> int:
        """Bytes held and not yet taken."""
        return len(self._data) - self._start + (0 if self._line is None else len(self._line) + 1)
