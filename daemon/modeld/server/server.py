"""Accepts peers, gives each a role before the first byte is read, and keeps the set of connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

import anyio
import anyio.abc
import structlog

from modeld.access.roles import Access
from modeld.operations.operation import Caller
from modeld.operations.registry import Operations
from modeld.operations.services import Services
from modeld.platform import endpoint, peers
from modeld.server.connection import PeerConnection
from modeld.server.peer_limits import PeerLimits
from modeld.server.refusals import Refusals
from modeld.server.shared import SharedState
from modelwire import replies
from modelwire.encoding import encode
from modelwire.errors import Interrupted, QueueFull, Unauthorized, WireError
from modelwire.vocabulary import Role

log = structlog.get_logger("modeld.server")

_TURNS_TO_NOTICE = 3
"""Turns of the event loop before a user counts as having too many connections: one to see that another connection was
closed just before this one was opened, one to end it, one for a close that fell between two turns."""

_SERVED_AT_ONCE = 4
"""New connections, each of another user, that are served before the others have their turn. Each takes about a third
of a millisecond: a user who connects without end delays others by no more."""

_LAST_REPLY_SECONDS = 2.0
"""How long a peer has to take its last reply when the daemon stops; a peer that reads needs a millisecond."""


class Server:
    def __init__(
        self,
        listening: endpoint.Listening,
        services: Services,
        operations: Operations,
        peer_limits: PeerLimits,
        access: Access,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self.shared = SharedState(services, operations, peer_limits, tasks)
        self._acceptor = endpoint.Acceptor(listening, self.shared.loop, self._admit, self._out_of_descriptors)
        self._access = access
        self._connections: set[PeerConnection] = set()
        self._refusals = Refusals(services.activity, self.shared.loop.call_later)
        self._admitted: dict[peers.UserId, deque[tuple[endpoint.Connection, peers.Peer, Role | None]]] = {}
        """Connections that are counted and not served yet, by user. The user whose turn is next comes first."""

        self._serving = False

    def open(self) -> None:
        self._acceptor.open()

    def stop_accepting(self) -> None:
        """Accepts no new peers; those that are connected are still served."""
        self._acceptor.close()

    def stop_accepting_if_empty(self) -> bool:
        """Reports whether no peer is connected and none waits to be accepted. If so, stops accepting in the same step:
        a peer that comes later gets no hello, and starts a new daemon."""
        if self._acceptor.accept() or self.shared.peer_limits.count:
            return False
        self.stop_accepting()
        return True

    def _out_of_descriptors(self, error: OSError) -> None:
        log.warning("no descriptor left for a new connection", error=str(error))

    def _admit(self, connection: endpoint.Connection, turns: int = _TURNS_TO_NOTICE) -> None:
        """The user is known at once, and mostly the role too. For the groups of another user the system may ask a slow
        directory server: then that connection waits, counted already, and no other does."""
        try:
            peer = connection.peer()
        except OSError as error:
            self._refuse(connection, _unidentified(error))
            return
        try:
            role = self._access.role_at_once(peer)
        except WireError as fault:
            self._refuse(connection, fault, peer)
            return
        try:
            self.shared.peer_limits.enter(peer.uid)
        except QueueFull as fault:
            if turns:
                self.shared.loop.call_soon(self._admit, connection, turns - 1)
            else:
                self._refuse(connection, fault, peer)
            return
        self._admitted.setdefault(self._access.user_of(peer.uid), deque()).append((connection, peer, role))
        if not self._serving:
            self._serving = True
            self._serve_next()

    def _serve_next(self) -> None:
        for uid in list(islice(self._admitted, _SERVED_AT_ONCE)):
            of_user = self._admitted.pop(uid)
            connection, peer, role = of_user.popleft()
            if of_user:
                self._admitted[uid] = of_user
            if connection.abandoned():
                connection.close()
                self.shared.peer_limits.leave(uid)
            else:
                self.shared.tasks.start_soon(self._serve, connection, peer, role, name="connect")
        self._serving = bool(self._admitted)
        if self._serving:
            self.shared.loop.call_soon(self._serve_next)

    async def _serve(self, connection: endpoint.Connection, peer: peers.Peer, role: Role | None) -> None:
        try:
            caller = Caller(peer.uid, peer.gid, await self._access.role_of(peer) if role is None else role)
        except BaseException as fault:
            self.shared.peer_limits.leave(peer.uid)
            if not isinstance(fault, WireError):
                connection.close()
                raise
            self._refuse(connection, fault, peer)
            return
        try:
            await connection.serve(
                self.shared.loop,
                lambda: PeerConnection(self.shared, connection, caller, peer.pid, self._opened, self._closed),
            )
        except (OSError, RuntimeError) as error:
            self.shared.peer_limits.leave(peer.uid)
            log.debug("a peer left while it was being admitted", uid=peer.uid, error=str(error))

    def _refuse(
        self,
        connection: endpoint.Connection,
        fault: WireError,
        peer: peers.Peer | None = None,
    ) -> None:
        self._refusals.note(None if peer is None else peer.uid, fault)
        try:
            connection.refuse(encode(replies.Error.of(None, fault)))
        except OSError as error:
            log.debug("a refused peer had already left", error=str(error))

    def _opened(self, connection: PeerConnection) -> None:
        self._connections.add(connection)

    def _closed(self, connection: PeerConnection) -> None:
        self._connections.discard(connection)
        self.shared.left(connection.caller)

    async def end_connections(self) -> None:
        """Gives every request in flight its terminal reply, then closes the connections."""
        self.stop_accepting()
        stopped = Interrupted(
            "the daemon stopped", hint="Connect again when it is back; `events.subscribe` with `since` misses nothing."
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
        with anyio.move_on_after(_LAST_REPLY_SECONDS):
            while not condition():  # noqa: ASYNC110 - a bounded wait at the very end
                await anyio.sleep(0.005)


def _unidentified(error: OSError) -> Unauthorized:
    return Unauthorized(
        f"the system does not report the user at the other end of this connection: {error.strerror or error}",
        hint="Connect through the daemon's Unix socket, not through a proxy.",
    )
