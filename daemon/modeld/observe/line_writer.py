"""Writes the daemon's own log from a thread of its own: standard error may have no reader, and a full pipe blocks.

The event loop appends to a bounded queue and never waits. Lines that find the queue full, or that the stream refuses,
are lost; their number is the next line that the stream takes.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TextIO, TypeVar

from modeld.platform import polling

T = TypeVar("T")

QUEUED_MAX: Final = 1000
"""Lines: more than a busy daemon logs in a minute, and some hundred kilobytes."""

FLUSH_SECONDS: Final = 1.0
"""A stream without a reader must not keep the daemon from ending."""


class LineWriter(Generic[T]):
    """`render` makes the text of a queued line, and `lost` the line about a number of lost ones; both run in the
    writer's thread."""

    def __init__(self, stream: TextIO, render: Callable[[T], str], lost: Callable[[int], T]) -> None:
        self._stream = stream
        self._render = render
        self._lost_line = lost
        self._queue: deque[T] = deque()
        self._lost = 0
        self._closing = False
        self._busy = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def put(self, line: T) -> None:
        """Queues a line. Never blocks."""
        with self._changed:
            if len(self._queue) >= QUEUED_MAX or self._closing:
                self._lost += 1
                return
            self._queue.append(line)
            self._changed.notify_all()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Waits until all lines are written, for so long at most. Reports whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._queue or self._busy), seconds)

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """As `flush`, and ends the thread once all lines are written. Lines that come later are lost. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self.flush(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                line = self._queue.popleft()
                self._busy = True
            written = self._write(line)
            with self._changed:
                self._lost += not written
                # Their place is after the lines that filled the queue.
                number, self._lost = (self._lost, 0) if written and not self._queue else (0, self._lost)
            if number and not self._write(self._lost_line(number)):
                with self._changed:
                    self._lost += number

    def _write(self, line: T) -> bool:
        try:
            write_to(self._stream, f"{self._render(line)}\n")
        except Exception:  # noqa: BLE001 - a closed pipe, a full disk: a log that cannot be written ends nothing
            return False
        return True


def write_to(stream: TextIO, text: str) -> None:
    """Writes past the buffer of Python's stream: a thread that blocks here holds no lock that the interpreter takes as
    it ends."""
    try:
        descriptor = stream.fileno()
    except OSError:  # a stream in memory
        stream.write(text)
        stream.flush()
        return
    view = memoryview(text.encode("utf-8", "backslashreplace"))
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # another process that has the same pipe has made it non-blocking
            polling.until_writable(descriptor)


def write_last(stream: TextIO, text: str, seconds: float = FLUSH_SECONDS) -> None:
    """Writes a text as the process ends. Waits for so long at most."""

    def write() -> None:
        with suppress(OSError, ValueError):
            write_to(stream, text)

    writer = threading.Thread(target=write, name="last words", daemon=True)
    writer.start()
    writer.join(seconds)
