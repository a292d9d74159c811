"""Detects a peer that takes no replies. A timer exists only while bytes wait: an idle daemon does not wake up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

LATE_SECONDS: Final = 0.1
"""A timer that fires later than this was held up: the process was stopped, or its loop was busy."""


class PeerTimer:
    """Calls `expired` when a peer has had `seconds` in which this daemon ran.

    After a stop of the process the loop runs its timers before it reads what arrived meanwhile: such a timer says
    nothing about the peer, and starts again.
    """

    __slots__ = ("_expired", "_loop", "_seconds", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._expired = expired
        self._start()

    def _start(self) -> None:
        self._timer = self._loop.call_later(self._seconds, self._fire)

    def _fire(self) -> None:
        if self._loop.time() - self._timer.when() > LATE_SECONDS:
            self._start()
        else:
            self._expired()

    def cancel(self) -> None:
        self._timer.cancel()


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
        self._timer: PeerTimer | None = None
        self._sent = 0
        self._taken = 0

    def sent(self, size: int) -> None:
        """Call it after each write."""
        self._sent += size
        if self._timer is None and (waiting := self._transport.get_write_buffer_size()):
            self._wait(self._sent - waiting)

    def _wait(self, taken: int) -> None:
        self._taken = taken
        self._timer = PeerTimer(self._loop, self._seconds, self._look)

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
