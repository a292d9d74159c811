"""Accepts peers, gives each a role before it may say a word, and keeps their connections together."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import anyio
import anyio.abc
import structlog

from modeld.operations.operation import Caller
from modeld.operations.registry import Operations
from modeld.operations.services import Services
from modeld.peers import Access, Accounts, identify, uid_of
from modeld.server.connection import PeerConnection
from modeld.server.peer_limits import PeerLimits
from modeld.server.refusals import Refusals
from modeld.server.shared import SharedState
from modelwire import replies
from modelwire.encoding import encode
from modelwire.errors import Interrupted, QueueFull, WireError

log = structlog.get_logger("modeld.server")

_ACCEPT_BATCH = 64
_BREATHE_SECONDS = 0.2
"""After running out of descriptors: long enough that some are closed, short enough that nobody gives up."""

_TURNS_TO_NOTICE = 3
"""Of the event loop, before a user counts as having too many connections: one to see that another one was closed just
before this one was opened, one to end it, one for a close that fell between two looks."""

_LAST_WORDS_SECONDS = 2.0
"""How long a peer has to take its last reply when the daemon stops; those that read need a millisecond."""

_OUT_OF_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Server:
    def __init__(
        self,
        listener: socket.socket,
        services: Services,
        operations: Operations,
        peer_limits: PeerLimits,
        access: Access,
        accounts: Accounts,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self.shared = SharedState(services, operations, peer_limits, tasks)
        self._listener = listener
        self._activity = services.activity
        self._accounts = accounts
        self._access = access
        self._connections: set[PeerConnection] = set()
        self._refusals = Refusals()

    def open(self) -> None:
        self._listener.setblocking(False)
        self.shared.loop.add_reader(self._listener.fileno(), self._accept)

    def stop_accepting(self) -> None:
        """No new peers; those inside are served on."""
        self.shared.loop.remove_reader(self._listener.fileno())

    def stop_accepting_if_empty(self) -> bool:
        """Whether no peer is connected and none waits to be accepted. Then none is accepted from here on, in the same
        step: a peer that comes now gets no hello, and starts a daemon anew."""
        self._accept()
        if self.shared.peer_limits.count:
            return False
        self.stop_accepting()
        return True

    def _accept(self) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                peer_socket, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_ROOM:
                    raise
                log.warning("no descriptor left for a new connection", error=str(error))
                self.stop_accepting()
                self.shared.loop.call_later(_BREATHE_SECONDS, self.open)
                return
            peer_socket.setblocking(False)
            self._admit(peer_socket)

    def _admit(self, peer_socket: socket.socket, turns: int = _TURNS_TO_NOTICE) -> None:
        """A foreign user's names may come from a slow directory server: that is asked in a thread. Others are let in
        or turned away on the spot."""
        uid = uid_of(peer_socket)
        if uid is not None and not self._accounts.answers_at_once(uid):
            self.shared.tasks.start_soon(self._admit_stranger, peer_socket, name="admit a stranger")
            return
        try:
            self._let_in(peer_socket, self._look_up(peer_socket))
        except QueueFull as fault:
            if turns:
                self.shared.loop.call_soon(self._admit, peer_socket, turns - 1)
            else:
                self._turn_away(peer_socket, fault)
        except WireError as fault:
            self._turn_away(peer_socket, fault)

    async def _admit_stranger(self, peer_socket: socket.socket) -> None:
        try:
            self._let_in(peer_socket, await anyio.to_thread.run_sync(self._look_up, peer_socket))
        except WireError as fault:
            self._turn_away(peer_socket, fault)
        except BaseException:
            peer_socket.close()
            raise

    def _let_in(self, peer_socket: socket.socket, caller: Caller) -> None:
        self.shared.peer_limits.enter(caller.uid)
        self.shared.tasks.start_soon(self._connect, peer_socket, caller, name="connect")

    async def _connect(self, peer_socket: socket.socket, caller: Caller) -> None:
        try:
            await self.shared.loop.connect_accepted_socket(
                lambda: PeerConnection(self.shared, caller, self._opened, self._closed), peer_socket
            )
        except (OSError, RuntimeError) as error:
            peer_socket.close()
            self.shared.peer_limits.leave(caller.uid)
            log.info("a peer left while it was being admitted", uid=caller.uid, error=str(error))

    def _look_up(self, peer_socket: socket.socket) -> Caller:
        peer = identify(peer_socket, self._accounts)
        return Caller(peer.uid, peer.gid, self._access.role_of(peer))

    def _turn_away(self, peer_socket: socket.socket, fault: WireError) -> None:
        if self._refusals.worth_telling(fault.code, uid_of(peer_socket), self.shared.loop.time()):
            self._activity.record("peer.refused", outcome=fault.code, message=fault.message)
        try:
            peer_socket.send(encode(replies.Error.of(None, fault)))
        except OSError as error:
            log.debug("a refused peer had already left", error=str(error))
        finally:
            peer_socket.close()

    def _opened(self, connection: PeerConnection) -> None:
        self._connections.add(connection)

    def _closed(self, connection: PeerConnection) -> None:
        self._connections.discard(connection)
        self.shared.left(connection.caller)

    async def end_connections(self) -> None:
        """Every request in flight gets its terminal reply, then the connections close."""
        self.stop_accepting()
        stopped = Interrupted(
            "the daemon stopped", hint="connect again when it is back; `events.subscribe` with `since` misses nothing"
        )
        for connection in list(self._connections):
            connection.end_requests(stopped)
        await self._until(lambda: not any(connection.busy for connection in self._connections))
        for connection in list(self._connections):
            connection.hang_up()
        await self._until(lambda: not self._connections)
        for connection in list(self._connections):
            connection.transport.abort()

    async def _until(self, condition: Callable[[], bool]) -> None:
        with anyio.move_on_after(_LAST_WORDS_SECONDS):
            while not condition():  # noqa: ASYNC110 - a bounded wait at the very end
                await anyio.sleep(0.005)
