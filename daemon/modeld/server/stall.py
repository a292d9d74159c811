"""Detects a peer that takes no replies. A timer exists only while bytes wait: an idle daemon does not wake up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class WriteWatch:
    """Calls `cut` when bytes wait and the peer took none of them for `seconds`.

    It counts the bytes taken and not those that wait: a peer that reads slowly gets more to read all the time.
    """

    __slots__ = ("_cut", "_loop", "_seconds", "_sent", "_taken", "_timer", "_transport")

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        cut: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds
        self._cut = cut
        self._timer: asyncio.TimerHandle | None = None
        self._sent = 0
        self._taken = 0

    def sent(self, size: int) -> None:
        """Call it after each write."""
        self._sent += size
        if self._timer is None and (waiting := self._transport.get_write_buffer_size()):
            self._wait(self._sent - waiting)

    def _wait(self, taken: int) -> None:
        self._taken = taken
        self._timer = self._loop.call_later(self._seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        waiting = self._transport.get_write_buffer_size()
        taken = self._sent - waiting
        if waiting and taken == self._taken:
            self._cut()
        elif waiting:
            self._wait(taken)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
