"""What all connections share: the operations, the limits, and the requests that each role permits."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import anyio.abc

from modeld.operations.operation import Caller
from modeld.operations.registry import Operations
from modeld.operations.services import Services
from modeld.platform import endpoint
from modeld.server.handing_over import HandingOver, Source
from modeld.server.peer_limits import PeerLimits
from modelwire import limits, replies, requests
from modelwire.encoding import encode
from modelwire.errors import Unsupported
from modelwire.operations import BY_REQUEST, CAPABILITIES
from modelwire.values import PeerView, Welcome
from modelwire.vocabulary import ROLE_ORDER, allows

_READ_BYTES: Final = 64 * 1024
"""What one read takes from a socket: a thousand requests, or a part of a big one."""

_CAPABILITIES: Final = tuple(
    name for name in CAPABILITIES if name != BY_REQUEST[requests.FilesOffer].capability or endpoint.TAKES_DESCRIPTORS
)

ECHO: Final = 100
"""Characters of a peer's text that an error repeats; an id has at most 64."""

_ECHOED: Final = 20
"""Missing capabilities that an error lists."""


class SharedState:
    def __init__(
        self, services: Services, operations: Operations, peer_limits: PeerLimits, tasks: anyio.abc.TaskGroup
    ) -> None:
        self._services = services
        self.operations = operations
        self.leases = services.store.leases
        self.tasks = tasks
        self.loop = asyncio.get_running_loop()
        self.write_stall = float(services.settings.limits.write_stall)
        self.read_stall = float(services.settings.limits.read_stall)
        self.peer_limits = peer_limits
        self.permitted = {
            role: frozenset(kind for kind, row in BY_REQUEST.items() if allows(role, row.role)) for role in ROLE_ORDER
        }
        self.read_buffer = memoryview(bytearray(_READ_BYTES))
        """For all connections: the loop fills it and passes it on in one callback. A buffer for each read, as of a
        plain protocol, is 256 KiB from the system and back: 10 us of each request."""
        self._hellos: dict[Caller, bytes] = {}
        self.last_activity = self.loop.time()

    def handing_over(self, source: Source, caller: Caller) -> HandingOver:
        services = self._services
        return HandingOver(source, caller, services.handed, own=services.is_own(caller.uid))

    def hello_for(self, caller: Caller) -> bytes:
        self.last_activity = self.loop.time()
        if caller not in self._hellos:
            self._hellos[caller] = encode(
                replies.Hello(
                    protocol=replies.ProtocolRange(),
                    server=self._services.daemon.server,
                    instance=self._services.daemon.instance,
                    store=self._services.store.layout.root,
                    max_request=limits.MAX_REQUEST,
                    max_reply=limits.MAX_REPLY,
                    capabilities=_CAPABILITIES,
                    peer=PeerView(uid=caller.uid, role=caller.role, gid=caller.gid),
                )
            )
        return self._hellos[caller]

    def welcome(self, request: requests.Hello) -> Welcome:
        """The answer to a client's own hello."""
        if not limits.PROTOCOL_MIN <= request.protocol <= limits.PROTOCOL_MAX:
            raise Unsupported(
                f"the client wants protocol {request.protocol}, this daemon speaks {limits.PROTOCOL_MIN} to"
                f" {limits.PROTOCOL_MAX}",
                hint="Update the older of the two.",
                details={"min": limits.PROTOCOL_MIN, "max": limits.PROTOCOL_MAX, "wanted": request.protocol},
            )
        missing = [name[:ECHO] for name in request.required if name not in _CAPABILITIES][:_ECHOED]
        if missing:
            raise Unsupported(
                f"the client needs {', '.join(missing)}; this daemon has {', '.join(_CAPABILITIES)}",
                hint="Update the daemon: a newer one may have it.",
                details={"missing": missing, "capabilities": list(_CAPABILITIES)},
            )
        wanted: Any = {*request.required, *request.optional}
        return Welcome(protocol=request.protocol, capabilities=tuple(sorted(wanted & set(_CAPABILITIES))))

    def left(self, caller: Caller) -> None:
        self.last_activity = self.loop.time()
        self.peer_limits.leave(caller.uid)

    def note_cut(self, caller: Caller) -> None:
        self._services.activity.record("peer.cut", peer=caller.uid, outcome="timeout")
