"""The connections that come to an endpoint: accepted, identified, then served or refused."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from modeld.platform.posix.peers import Peer, identify
from modeld.platform.posix.polling import hung_up

if TYPE_CHECKING:
    import asyncio  # only the types: see modeld.platform

Listening: TypeAlias = socket.socket
"""What an endpoint listens on."""

ACCEPT_BATCH: Final = 64
"""Connections that are accepted before the loop has its turn."""

BREATHE_SECONDS: Final = 0.2
"""After running out of descriptors: long enough that some are closed, short enough that no client gives up."""

_OUT_OF_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Connection:
    """A peer that has connected and is not served yet."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        connected.setblocking(False)

    def peer(self) -> Peer:
        """Who has connected, on the spot. OSError when the system cannot tell."""
        return identify(self._socket)

    async def serve(self, loop: asyncio.AbstractEventLoop, make: Callable[[], asyncio.Protocol]) -> None:
        """Hands the connection to a protocol; OSError or RuntimeError when the peer has left, and then it is closed."""
        try:
            await loop.connect_accepted_socket(make, self._socket)
        except (OSError, RuntimeError):
            self._socket.close()
            raise

    def refuse(self, last_words: bytes) -> None:
        """Sends what the peer takes at once, and closes. OSError when it has left already."""
        try:
            self._socket.send(last_words)
        finally:
            self._socket.close()

    def close(self) -> None:
        self._socket.close()


class Acceptor:
    """Hands over each peer that connects, between `open` and `close`. `starved` hears of a lack of descriptors or
    memory, after which it accepts again a moment later."""

    def __init__(
        self,
        listening: Listening,
        loop: asyncio.AbstractEventLoop,
        came: Callable[[Connection], None],
        starved: Callable[[OSError], None],
    ) -> None:
        self._loop = loop
        self._listening = listening
        self._came = came
        self._starved = starved

    def open(self) -> None:
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening.fileno(), self.accept)

    def close(self) -> None:
        """No further peers; the socket listens on."""
        self._loop.remove_reader(self._listening.fileno())

    def accept(self) -> None:
        """Takes those who wait already."""
        for _ in range(ACCEPT_BATCH):
            try:
                connected, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_ROOM:
                    raise
                self._starved(error)
                self.close()
                self._loop.call_later(BREATHE_SECONDS, self.open)
                return
            self._came(Connection(connected))


def reader_gone(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer of a served connection has closed both ways: once it has ended its sending side, reading
    reports no more."""
    return hung_up(transport.get_extra_info("socket"))
