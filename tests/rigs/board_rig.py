"""A board with its real parts, work that runs until it is told to end, and a disk that is slow or full."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel

from modeld.activity import Activity
from modeld.jobs.admission import Gate, Limits
from modeld.jobs.board import Attachment, Board
from modeld.jobs.job import AnyJob, Job, Kind
from modeld.jobs.ledger import JobRecord, Ledger
from modeld.progress import Stopped
from modeld.store.catalog.catalog import Catalog
from modelwire.errors import NoSpace, WireError
from modelwire.requests import ModelAdd
from modelwire.values import Added

UID, STRANGER, LENT = 1000, 2000, 100_000
"""`LENT` counts as `STRANGER`."""

PATIENCE = 10.0


class Diary:
    """Stands for the activity log."""

    watchers = 0

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def record(self, event: str, **fields: Any) -> None:
        self.events.append((event, str(fields.get("job"))))

    def forget_progress(self, job: str) -> None:
        pass

    def events_of(self, job: AnyJob) -> list[str]:
        return [event for event, of in self.events if of == job.id]

    def ends_of(self, job: AnyJob) -> list[str]:
        ends = ("job.done", "job.failed", "job.cancelled")
        return [event for event, of in self.events if of == job.id and event in ends]


class SlowLedger(Ledger):
    """A real one whose updates wait while `gate` is closed, or fail as on a full disk."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__(catalog)
        self.gate = anyio.Event()
        self.gate.set()
        self.waiting = 0
        self.full = False
        self.broken = False
        """Whether updates raise what is no error of the wire."""

    @property
    def late(self) -> list[str]:
        return list(self._late)

    async def update(self, id_: str, **changes: Any) -> JobRecord:
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        if self.full:
            raise NoSpace("the catalogue's disk is full")
        if self.broken:
            raise LookupError("an error that nobody foresaw")
        return await super().update(id_, **changes)

    async def write_late(self) -> None:
        if not self.full:
            await super().write_late()


class HeldWork(Kind[ModelAdd, Added]):
    """Runs until told to end or to stop, as byte work does; told both, it stops. Or it is deaf."""

    request, value = ModelAdd, Added

    def __init__(self) -> None:
        self.finish = anyio.Event()
        self.deaf = False
        self.content: dict[str, str] = {}
        """What each name stands for."""
        self.makes = "sha256:" + "0" * 64
        self.unreadable: WireError | None = None
        """What looking for the publication of an earlier run raises; otherwise it did not take place."""

    def changes(self, request: ModelAdd, /) -> str | None:
        return request.name if request.replace else None

    async def standing(self, name: str, /) -> str:
        return self.content.get(name, "")

    def made(self, outcome: Added, /) -> bool:
        return self.content.get(outcome.name) == outcome.blob

    async def work(self, job: Job[ModelAdd, Added], /) -> Added:
        while self.deaf or not job.progress.stopped():
            if self.finish.is_set():
                break
            await anyio.sleep(0.001)
        else:
            raise Stopped
        self.content[job.request.name or ""] = self.makes
        return Added(name=job.request.name or "", blob=self.makes, size_bytes=1, format="gguf", path="/x")

    def took_place(self, _request: ModelAdd, _intent: Added, /) -> bool:
        if self.unreadable is not None:
            raise self.unreadable
        return False


@dataclass
class Desk:
    board: Board
    catalog: Catalog
    ledger: SlowLedger
    diary: Diary
    gate: Gate
    tasks: anyio.abc.TaskGroup
    work: HeldWork = field(default_factory=HeldWork)

    @property
    def finish(self) -> anyio.Event:
        return self.work.finish

    async def submit(self, name: str, *, uid: int = UID, **fields: Any) -> Attachment[ModelAdd, Added]:
        request = ModelAdd(id="1", path="/source", name=name, **fields)
        changed = self.work.changes(request)
        return await self.board.submit(
            self.work,
            request,
            key=f"{uid} {name}",
            model=name,
            peer=uid,
            accepted_for=None if changed is None else await self.work.standing(changed),
        )

    async def job(self, name: str, **fields: Any) -> Job[ModelAdd, Added]:
        """One that goes on although nobody is attached to it."""
        asked = await self.submit(name, on_disconnect="continue", **fields)
        asked.leave()
        return asked.job


@asynccontextmanager
async def desk(directory: Path, *, running: int = 1, waiting_per_peer: int = 16) -> AsyncIterator[Desk]:
    catalog = Catalog.open(str(directory / "catalog.sqlite"))
    try:
        ledger, diary = SlowLedger(catalog), Diary()
        limits = Limits(running_default=running, waiting_per_peer=waiting_per_peer)
        gate = Gate(limits, anyio.current_time, first_order=ledger.next_order_now())
        async with anyio.create_task_group() as tasks:
            counts: dict[int, int] = {LENT: STRANGER}
            board = Board(
                gate,
                ledger,
                cast("Activity", diary),
                tasks,
                trusted=lambda uid: uid == UID,
                user_of=lambda uid: counts.get(uid, uid),
            )
            made = Desk(board, catalog, ledger, diary, gate, tasks)
            board.register(made.work)
            with anyio.fail_after(PATIENCE):
                yield made
            tasks.cancel_scope.cancel()
    finally:
        catalog.close()


async def state_at_end(job: AnyJob) -> str:
    await job.ended.wait()
    return job.state
