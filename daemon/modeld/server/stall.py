"""Watches that a peer takes what it is sent. A timer exists only while bytes wait: an idle daemon does not wake up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class WriteWatch:
    """Calls `cut` when bytes wait and not one was taken for the whole patience.

    Counted by what was taken, not by how much waits: whoever reads slowly gets more to read all the time.
    """

    __slots__ = ("_cut", "_loop", "_patience", "_sent", "_taken", "_timer", "_transport")

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        loop: asyncio.AbstractEventLoop,
        patience: float,
        cut: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._patience = patience
        self._cut = cut
        self._timer: asyncio.TimerHandle | None = None
        self._sent = 0
        self._taken = 0

    def sent(self, size: int) -> None:
        """To be called after each write."""
        self._sent += size
        if self._timer is None and (waiting := self._transport.get_write_buffer_size()):
            self._wait(self._sent - waiting)

    def _wait(self, taken: int) -> None:
        self._taken = taken
        self._timer = self._loop.call_later(self._patience, self._look)

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
