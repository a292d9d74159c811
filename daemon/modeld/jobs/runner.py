"""Runs jobs that admission has let in, and writes down how each ended before anybody is told."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import anyio
import anyio.abc
import msgspec
import structlog

from modeld.activity import Activity
from modeld.jobs import record
from modeld.jobs.admission import Gate, Owed, Ticket
from modeld.jobs.job import Job
from modeld.jobs.ledger import Ledger
from modeld.jobs.tables import Tables
from modeld.observe.incident import incident
from modeld.progress import Stopped, StopReason
from modelwire.errors import Cancelled, Interrupted, WireError
from modelwire.limits import PROGRESS_INTERVAL_SECONDS
from modelwire.values import Counters, Value
from modelwire.vocabulary import JobState

log = structlog.get_logger("modeld.jobs")

Work = Callable[[Job], Awaitable[Value]]

TookPlace = Callable[[Job], bool]
"""Whether the change that a job announced before a crash happened."""

Queue = Callable[[Job], str]
"""Where a job lines up: with those whose slots it takes."""

V = TypeVar("V", bound=Value)


def _never(_: Job) -> bool:
    return False


def _own_kind(job: Job) -> str:
    return job.kind


class Runner:
    def __init__(
        self, gate: Gate, ledger: Ledger, activity: Activity, tables: Tables, tasks: anyio.abc.TaskGroup
    ) -> None:
        self.gate = gate
        self._ledger = ledger
        self._activity = activity
        self._tables = tables
        self._tasks = tasks
        self._works: dict[str, Work] = {}
        self._took_place: dict[str, TookPlace] = {}
        self._queues: dict[str, Queue] = {}
        self._owed_ends: dict[str, dict[str, object]] = {}
        """By job: what the ledger has to be told of an end that it could not take. Few: on a full disk nothing new is
        admitted but what frees space."""
        self.last_end = 0.0
        """On the event loop's clock."""

    def register(self, kind: str, work: Work, took_place: TookPlace = _never, queue: Queue = _own_kind) -> None:
        """`queue` is asked once each time that the job lines up; by default jobs of a kind wait for each other."""
        self._works[kind] = work
        self._took_place[kind] = took_place
        self._queues[kind] = queue

    def took_place(self, job: Job) -> bool:
        """For a restart: when it did, the job is done, else it runs again."""
        return self._took_place.get(job.kind, _never)(job)

    def settle(self, owed: Owed) -> None:
        """Carries out what a change of the queue owes: starts, and new positions to tell."""
        for job_id in owed.starts:
            if job := self._tables.live(job_id):
                self.start(job)
        for job_id, position in owed.moves:
            if job := self._tables.live(job_id):
                job.position = position
                job.changed.fire()

    def ticket(self, job: Job) -> Ticket:
        queue = self._queues.get(job.kind, _own_kind)(job)
        return Ticket(job.id, job.peer, queue, job.priority, job.order)

    def start(self, job: Job) -> None:
        """The state changes here, before the task runs: a cancel in between must find a running job."""
        job.state, job.position = "running", 0
        self._tasks.start_soon(self._run, job, name=f"job {job.id}")

    def stop(self, job: Job, reason: StopReason) -> None:
        """Asks the work to stop at its next look; a cancel is never weakened to something else."""
        if job.meter.stop_reason in (None, "pause"):
            job.meter.stop_reason = reason

    async def _run(self, job: Job) -> None:
        try:
            await job.recorded.wait()
            if job.withdrawn:
                return
            if job.meter.stop_reason is not None:
                await self._stopped(job)
                return
            job.attempts += 1
            job.started_at = time.time()
            job.meter.begin_attempt(job.attempts)
            job.changed.fire()
            self.note(job, "job.started", attempt=job.attempts)
            self._tasks.start_soon(self._tell_watchers, job, name=f"progress {job.id}")
            await self._work(job)
        except Exception as error:  # noqa: BLE001 - a job that cannot even be ended well must not end the daemon
            self._give_up(job, incident(error, job=job.id, kind=job.kind))
        finally:
            self.settle(self.gate.finish(job.id))

    def _give_up(self, job: Job, fault: WireError) -> None:
        """Its end could not be written down. Whoever waits is told; the next start finds it open and runs it again."""
        if not job.ended.is_set():
            job.failure, job.state, job.position = fault, "failed", None
            self._tables.leave(job, remember=True)
            job.ended.set()
            job.changed.fire()

    async def _tell_watchers(self, job: Job) -> None:
        """Progress for those who watch everything; those who are attached look for themselves."""
        told: Counters | None = None
        while job.state == "running" and not job.ended.is_set():
            if self._activity.watchers and (now := job.meter.snapshot()) != told:
                told = now
                self._activity.progress(job.id, model=job.model, **msgspec.structs.asdict(now))
            with anyio.move_on_after(PROGRESS_INTERVAL_SECONDS):
                await job.ended.wait()
        self._activity.forget_progress(job.id)

    async def _work(self, job: Job) -> None:
        try:
            value = await self._works[job.kind](job)
        except Stopped:
            await self._stopped(job)
        except WireError as fault:
            await self.end(job, "failed", failure=fault)
        except Exception as error:  # noqa: BLE001 - told by its incident; the daemon and the other jobs go on
            await self.end(job, "failed", failure=incident(error, job=job.id, kind=job.kind))
        else:
            await self.end(job, "done", value=value)

    async def _stopped(self, job: Job) -> None:
        if job.meter.stop_reason == "park":
            self.park(job)
        elif job.meter.stop_reason == "pause":
            await self.set_paused(job)
        else:
            await self.end(job, "cancelled", failure=Cancelled(f"job {job.id} was cancelled: {job.stop_words}"))

    async def set_paused(self, job: Job) -> None:
        job.state, job.position = "paused", None
        with anyio.CancelScope(shield=True):
            try:
                await self._ledger.update(job.id, state="paused")
            except WireError as error:
                log.warning(
                    "a pause could not be recorded: a restart will not know of it", job=job.id, error=error.message
                )
        self.note(job, "job.paused")
        job.changed.fire()

    def park(self, job: Job) -> None:
        """The daemon stops first. The ledger still has the job open: the next start takes it up."""
        job.failure = Interrupted(
            f"the daemon stopped before job {job.id} had ended",
            hint=f"the job goes on at the next start; `modelctl attach {job.id}` follows it",
            details={"job": job.id},
        )
        self.note(job, "job.parked")
        job.ended.set()
        job.changed.fire()

    # -- the two records around a publication

    async def about_to_publish(self, job: Job, intent: Value) -> None:
        """In the publisher's turn, before the name changes: after a crash the restart knows what to look for."""
        await self._ledger.update(
            job.id,
            state="running",
            started_at=job.started_at,
            attempts=job.attempts,
            result=record.encode(_signed(intent, job)),
        )

    async def published(self, job: Job, value: Value) -> None:
        """Still in the publisher's turn: after a crash at most one publication lacks its record."""
        job.ended_at = time.time()
        await self._ledger.update(
            job.id, state="done", ended_at=job.ended_at, result=record.encode(_signed(value, job))
        )
        job.end_recorded = True

    async def end(
        self, job: Job, state: JobState, *, value: Value | None = None, failure: WireError | None = None
    ) -> None:
        if job.ending:
            await job.ended.wait()
            return
        job.ending = True
        job.ended_at = job.ended_at or time.time()
        job.value, job.failure = None if value is None else _signed(value, job), failure
        with anyio.CancelScope(shield=True):
            if not job.end_recorded:
                await self._record_end(job, state)
        job.state, job.position = state, None
        if state == "done":
            job.meter.phase("done")
        self._tables.leave(job, remember=True)
        self.last_end = anyio.current_time()
        self.note(job, f"job.{state}", **record.outcome(job))
        job.ended.set()
        job.changed.fire()

    async def _record_end(self, job: Job, state: JobState) -> None:
        changes: dict[str, object] = {
            "state": state,
            "started_at": job.started_at,
            "ended_at": job.ended_at,
            "attempts": job.attempts,
            "result": record.encode(job.value) if job.value else None,
            "error": record.encode(failure) if (failure := job.failure_value()) else None,
        }
        try:
            await self._ledger.update(job.id, **changes)
        except WireError as error:
            # The work has ended either way: say so now, and write it down with the next end, or when the daemon stops.
            self._owed_ends[job.id] = changes
            log.warning("the end of a job could not be recorded", job=job.id, state=state, error=error.message)
        else:
            await self.record_owed_ends()

    async def record_owed_ends(self) -> None:
        """Else the next start would run again what was cancelled, or has failed, and whose asker was told so."""
        with suppress(WireError):
            for job_id, changes in list(self._owed_ends.items()):
                await self._ledger.update(job_id, **changes)
                self._owed_ends.pop(job_id, None)

    def note(self, job: Job, event: str, **figures: object) -> None:
        """One line in the activity log."""
        self._activity.record(event, job=job.id, model=job.model, peer=job.peer, kind=job.kind, **figures)


def _signed(value: V, job: Job) -> V:
    """The store knows nothing of jobs; whoever reads the outcome wants to know which one it was."""
    return msgspec.structs.replace(value, job=job.id) if "job" in value.__struct_fields__ else value
