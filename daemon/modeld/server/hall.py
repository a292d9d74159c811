"""What all connections share: who may do what, how long a peer may take, who is there."""

from __future__ import annotations

import asyncio

import anyio.abc

from modeld.operations.calling import Caller, Handlers
from modeld.operations.house import House
from modeld.server.sessions import Sessions
from modelwire import limits, replies
from modelwire.encoding import encode
from modelwire.operations import BY_REQUEST, CAPABILITIES
from modelwire.values import PeerView
from modelwire.vocabulary import ROLE_ORDER, allows


class Hall:
    def __init__(self, house: House, handlers: Handlers, tasks: anyio.abc.TaskGroup) -> None:
        handlers.check_complete()
        self._house = house
        self.handlers = handlers
        self.tasks = tasks
        self.loop = asyncio.get_running_loop()
        self.write_stall = float(house.settings.limits.write_stall)
        self.read_stall = float(house.settings.limits.read_stall)
        self.sessions = Sessions(
            connections_per_peer=house.settings.limits.connections_per_peer,
            requests_per_peer=house.settings.limits.requests_per_peer,
        )
        self.permitted = {
            role: frozenset(kind for kind, row in BY_REQUEST.items() if allows(role, row.role)) for role in ROLE_ORDER
        }
        self._hellos: dict[Caller, bytes] = {}
        self.last_activity = self.loop.time()

    def hello_for(self, caller: Caller) -> bytes:
        self.last_activity = self.loop.time()
        if caller not in self._hellos:
            self._hellos[caller] = encode(
                replies.Hello(
                    protocol=replies.ProtocolRange(),
                    server=self._house.server,
                    instance=self._house.instance,
                    store=self._house.store.layout.root,
                    max_request=limits.MAX_REQUEST,
                    max_reply=limits.MAX_REPLY,
                    capabilities=CAPABILITIES,
                    peer=PeerView(uid=caller.uid, role=caller.role, gid=caller.gid),
                )
            )
        return self._hellos[caller]

    def left(self, caller: Caller) -> None:
        self.last_activity = self.loop.time()
        self.sessions.leave(caller.uid)

    def note_cut(self, caller: Caller) -> None:
        self._house.activity.record("peer.cut", peer=caller.uid, outcome="timeout")
