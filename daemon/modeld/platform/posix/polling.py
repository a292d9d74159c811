"""Whether a descriptor is ready. Uses poll, because select refuses descriptors from 1024 on."""

from __future__ import annotations

import select
import socket

_ENDED = select.POLLHUP | select.POLLERR | select.POLLNVAL


def readable(descriptor: int, seconds: float = 0) -> bool:
    """Whether a read returns at once, now or within so many seconds: with bytes, with the end, or with an error."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def until_writable(descriptor: int, seconds: float | None = None) -> bool:
    """Waits until a write does not block, or fails; False when that takes longer than `seconds`."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def hung_up(connection: socket.socket) -> bool:
    """Whether the peer has closed both ways. A peer that only ended its sending side is still there to read."""
    poll = select.poll()
    poll.register(connection, 0)
    return any(flags & _ENDED for _, flags in poll.poll(0))
