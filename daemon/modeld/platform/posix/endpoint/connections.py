"""The connections to an endpoint: accepted, identified, then served or refused."""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from modeld.platform.posix.clock import elapsed
from modeld.platform.posix.endpoint.descriptors import Arrived, ReceivingSocket
from modeld.platform.posix.endpoint.peer_files import sees_same_files
from modeld.platform.posix.peers import Peer, identify
from modeld.platform.posix.polling import hung_up

if TYPE_CHECKING:
    import asyncio  # only the types: see modeld.platform

Listening: TypeAlias = socket.socket
"""The socket that an endpoint listens on."""

ACCEPT_BATCH: Final = 16
"""Most connections to accept before the event loop runs again: about 0.3 ms."""

RETRY_SECONDS: Final = 0.2
"""A pause after running out of descriptors: some are closed meanwhile, and no client gives up in so short a time."""

_OUT_OF_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Connection:
    """An accepted connection that is not served yet."""

    def __init__(self, connected: socket.socket) -> None:
        self._accepted = elapsed()
        self._socket = ReceivingSocket(connected)
        self._socket.setblocking(False)

    def abandoned(self) -> bool:
        """Whether the peer has left without a word: a tenth of the cost of serving it to its end."""
        try:
            if self._socket.recv(1, socket.MSG_PEEK):
                return False
        except BlockingIOError:
            return False
        except OSError:
            return True
        return hung_up(self._socket)

    def peer(self) -> Peer:
        """The peer, without blocking. Raises OSError when the system does not report it."""
        return identify(self._socket)

    def sees_same_files(self) -> bool:
        """Whether a path means to the peer what it means to this process; False in doubt. OSError when this
        process has nothing left to find out with. Blocks."""
        return sees_same_files(self._socket, self._accepted)

    @property
    def arrived(self) -> deque[Arrived]:
        """The descriptors that came with what has been read, message by message: whoever takes them closes them."""
        return self._socket.arrived

    async def serve(self, loop: asyncio.AbstractEventLoop, make: Callable[[], asyncio.BaseProtocol]) -> None:
        """Hands the connection to a protocol; when the peer has left, closes it and raises OSError or RuntimeError."""
        try:
            await loop.connect_accepted_socket(make, self._socket)
        except (OSError, RuntimeError):
            self._socket.close()
            raise

    def refuse(self, reply: bytes) -> None:
        """Sends what the peer takes of the reply without blocking, and closes. OSError when the peer has left."""
        try:
            self._socket.send(reply)
        finally:
            self._socket.close()

    def close(self) -> None:
        self._socket.close()


class Acceptor:
    """Calls `on_connection` for each connection between `open` and `close` whose peer has not left. When descriptors
    or memory run out, calls `on_exhausted` and accepts again after RETRY_SECONDS."""

    def __init__(
        self,
        listening: Listening,
        loop: asyncio.AbstractEventLoop,
        on_connection: Callable[[Connection], None],
        on_exhausted: Callable[[OSError], None],
    ) -> None:
        self._loop = loop
        self._listening = listening
        self._on_connection = on_connection
        self._on_exhausted = on_exhausted

    def open(self) -> None:
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening.fileno(), self.accept)

    def close(self) -> None:
        """Accepts no further connections; the socket keeps listening."""
        self._loop.remove_reader(self._listening.fileno())

    def accept(self) -> bool:
        """Accepts connections that wait already, up to a bound. Reports whether more may wait."""
        for _ in range(ACCEPT_BATCH):
            try:
                connected, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                if error.errno not in _OUT_OF_ROOM:
                    raise
                self._on_exhausted(error)
                self.close()
                self._loop.call_later(RETRY_SECONDS, self.open)
                return True
            connection = Connection(connected)
            if connection.abandoned():
                connection.close()
            else:
                self._on_connection(connection)
        return True


def reader_gone(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer of a served connection has closed both ways. After the end of its sending side, reading reports
    nothing more."""
    return hung_up(transport.get_extra_info("socket"))
