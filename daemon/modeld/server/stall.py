"""Watches that a peer takes what it is sent. A timer exists only while bytes wait: an idle daemon does not wake up."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable


def gone(connection: socket.socket) -> bool:
    """Whether the peer has closed both ways. A peer that only ended its sending side is still there to read."""
    poll = select.poll()
    poll.register(connection, 0)
    return any(flags & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, flags in poll.poll(0))


class WriteWatch:
    """Calls `cut` when not one waiting byte was taken for the whole patience."""

    __slots__ = ("_cut", "_loop", "_patience", "_timer", "_transport", "_waiting")

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
        self._waiting = 0

    def mind(self) -> None:
        """To be called after a write."""
        if self._timer is None and (waiting := self._transport.get_write_buffer_size()):
            self._waiting = waiting
            self._timer = self._loop.call_later(self._patience, self._look)

    def _look(self) -> None:
        self._timer = None
        waiting = self._transport.get_write_buffer_size()
        if waiting >= self._waiting and waiting:
            self._cut()
        elif waiting:
            self._waiting = waiting
            self._timer = self._loop.call_later(self._patience, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
