"""The operations of a daemon over its real parts, without a server: a store, a board, an activity log, no network."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio

from modeld.access.accounts import Accounts
from modeld.access.handed import HandedFiles
from modeld.access.lending import Lending
from modeld.access.roles import Access
from modeld.activity import Activity
from modeld.config import Settings
from modeld.config.settings import AccessSettings
from modeld.jobs.admission import Gate, Limits
from modeld.jobs.board import Board
from modeld.jobs.ledger import Ledger
from modeld.machine.machine import ThisMachine
from modeld.operations.arriving import FETCHING, arriving
from modeld.operations.operation import Caller, Connection, Handed, Operation
from modeld.operations.registry import Operations, all_operations
from modeld.operations.services import Services, ThisDaemon
from modeld.pulls.context import PullContext
from modeld.pulls.refetching import Refetching
from modeld.store import Store
from modeld.store.catalog.catalog import Catalog
from modelwire.encoding import encode
from modelwire.errors import InvalidRequest
from modelwire.replies import Reply
from modelwire.requests import Request
from modelwire.values import Machine, RecoveryView

UID = 1000
MINE = Caller(UID, UID, "write")
ANOTHER = Caller(UID + 1, UID + 1, "write")
ADMIN = Caller(0, 0, "admin")
PATIENCE = 20.0
MODEL_FILE = b"GGUF\3\0\0\0 the bytes of a model"
MACHINE = Machine(architecture="x86_64", ram_mb=8192, vram_from="no card", absent_providers=("cuda", "tensorrt"))

Op = TypeVar("Op", bound=Operation[Any, Any])


class Nobody:
    """No peer is connected."""

    count = 0

    def by_peer(self) -> dict[str, int]:
        return {}


class HandsNothing:
    """A connection that hands over no files, and whose paths mean what they mean to the daemon."""

    def take(self, transfer: str) -> HandedFiles:
        raise InvalidRequest(f"$.transfer: {transfer}")

    async def may_name_paths(self) -> bool:
        return True


@dataclass(eq=False)
class OpenConnection:
    pid: int = 4242
    closed: bool = False


@dataclass
class NotingCall:
    """A request whose replies are noted."""

    caller: Caller = MINE
    id: str = "1"
    writable: bool = True
    sent: list[Reply | bytes] = field(default_factory=list)
    handed: Handed = field(default_factory=HandsNothing)
    connection: Connection = field(default_factory=OpenConnection)

    def send(self, reply: Reply) -> None:
        self.sent.append(reply)

    def frame(self, reply: Reply) -> bytes:
        return encode(reply)

    def send_frame(self, frame: bytes) -> None:
        self.sent.append(frame)

    def takes_long(self) -> None:
        pass

    async def until_writable(self) -> None:
        assert self.writable


@dataclass
class OperationsRig:
    services: Services
    operations: Operations
    room: Path
    drains: list[float | None]
    catalog: Catalog

    def of(self, kind: type[Op]) -> Op:
        """Another one of this class beside that of the registry: operations keep nothing that matters here."""
        return kind(self.services)

    async def ask(self, request: Request, caller: Caller = MINE) -> Any:
        """As a server does it, roles apart."""
        quick = self.operations.quick.get(type(request))
        if quick is not None:
            return quick(caller, request)
        return await self.operations.slow[type(request)](NotingCall(caller), request)

    def file(self, name: str, content: bytes = MODEL_FILE) -> str:
        path = self.room / name
        path.write_bytes(content)
        return str(path)


@asynccontextmanager
async def operations_rig(room: Path, access: AccessSettings | None = None) -> AsyncIterator[OperationsRig]:
    settings = Settings(access=access or AccessSettings())
    with ExitStack() as closing:
        catalog = Catalog.open(str(room / "catalog.sqlite"))
        closing.callback(catalog.close)
        store = Store.open(str(room / "store"), settings.store, catalog)
        closing.callback(store.close)
        pulls = PullContext(store, catalog, settings, {})
        closing.callback(pulls.close)
        activity = Activity.open(str(room / "activity.ndjson"))
        closing.callback(activity.close)
        ledger, drains = Ledger(catalog), list[float | None]()
        gate = Gate(Limits(), anyio.current_time, first_order=ledger.next_order_now())

        def drain(deadline: float | None) -> float:
            drains.append(deadline)
            return 30.0 if deadline is None else deadline

        async with anyio.create_task_group() as tasks:
            services = Services(
                settings=settings,
                store=store,
                board=Board(gate, ledger, activity, tasks),
                gate=gate,
                activity=activity,
                pulls=pulls,
                refetching=Refetching(pulls),
                machine=ThisMachine({}, quick=lambda: MACHINE, whole=lambda found: found),
                daemon=ThisDaemon(
                    server="modeld/test",
                    instance="i",
                    socket="/s",
                    started=time.time(),
                    auto_started=False,
                    recovery=RecoveryView(),
                    presence=Nobody(),
                ),
                drain=drain,
                own_uid=UID,
                accounts=(accounts := Accounts()),
                access=Access(settings.access.users, settings.access.groups, UID, accounts),
                lending=Lending((), UID, accounts),
            )
            store.models.arriving = partial(arriving, services.board)
            store.models.failed_fetches = partial(ledger.failed_last, FETCHING)
            with anyio.fail_after(PATIENCE):
                yield OperationsRig(services, all_operations(services), room, drains, catalog)
            tasks.cancel_scope.cancel()
