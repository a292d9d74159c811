"""Runs admitted jobs, and records how each ended before any client learns of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import msgspec
import structlog

from modeld.activity import Activity
from modeld.jobs import record
from modeld.jobs.admission import Gate, Owed, Standing, Ticket
from modeld.jobs.index import JobIndex
from modeld.jobs.job import AnyJob, Job, V, W
from modeld.jobs.ledger import Ledger
from modeld.jobs.states import End
from modeld.observe.incident import incident
from modeld.progress import Stopped
from modelwire.errors import Cancelled, Interrupted, WireError
from modelwire.limits import PROGRESS_INTERVAL_SECONDS
from modelwire.values import Counters, Value

log = structlog.get_logger("modeld.jobs")


class Runner:
    def __init__(
        self,
        gate: Gate,
        ledger: Ledger,
        activity: Activity,
        jobs: JobIndex,
        tasks: anyio.abc.TaskGroup,
        *,
        on_failed: Callable[[AnyJob], None],
        user_of: Callable[[int], int],
    ) -> None:
        self.gate = gate
        self.ledger = ledger
        self._activity = activity
        self._jobs = jobs
        self._tasks = tasks
        self._on_failed = on_failed
        self._user_of = user_of
        self.last_end = 0.0
        """When the last job ended, on the event loop's clock."""
        self.on_end: Callable[[], None] = lambda: None
        """Called after each run of a job, whether or not the job has ended with it."""

    def settle(self, owed: Owed) -> None:
        """Carries out what a change of the queue entails: starts jobs, and passes on new positions."""
        for job_id in owed.starts:
            if job := self._jobs.live(job_id):
                if job.stage == "queued":
                    self._start(job)
                else:
                    job.changed.fire()  # it was started before, and stepped aside
        for job_id, position in owed.moves:
            if (job := self._jobs.live(job_id)) and job.stage == "queued":
                job.position = position
                job.changed.fire()

    def ticket(self, job: AnyJob) -> Ticket:
        return Ticket(job.id, self._user_of(job.peer), job.kind.queue(job.request), job.priority, job.order)

    def readmit(self, job: AnyJob) -> None:
        """Puts a job that was admitted before at the end of its queue, whose limits do not apply to it."""
        job.progress.phase("queued")
        self.place(job, self.gate.restore(self.ticket(job)))
        job.changed.fire()

    def place(self, job: AnyJob, standing: Standing) -> None:
        """Gives a job the place that the gate has for it: a slot or one in the queue."""
        job.position = standing.position
        self.settle(Owed((job.id,) if standing.position == 0 else (), standing.moves))

    def put_back(self, job: AnyJob, why: str) -> None:
        """Asks a running job that can go on later to give its slot to others."""
        if job.move("yield"):
            self.gate.gives_way(job.id)
            self.note(job, "job.yielding", message=why)

    @asynccontextmanager
    async def aside(self, job: AnyJob) -> AsyncIterator[None]:
        """Around a wait for another program: meanwhile other jobs use the slot. Raises Stopped when the job is stopped
        before it has a slot again."""
        if self.gate.is_aside(job.id):
            yield
            return
        self.settle(self.gate.step_aside(job.id))
        yield
        self.settle(self.gate.come_back(job.id))
        while not self.gate.holds_slot(job.id):
            if job.progress.stopped():
                raise Stopped
            await job.changed.wait()

    def leave_slot(self, job: AnyJob) -> None:
        """For work whose rest needs none: it waits for others, or takes a moment."""
        if not self.gate.is_aside(job.id):
            self.settle(self.gate.step_aside(job.id))

    def _start(self, job: AnyJob) -> None:
        """Changes the stage before the task runs: a cancel in between must find a running job."""
        job.move("start")
        self._tasks.start_soon(self._run, job, name=f"job {job.id}")

    async def _run(self, job: AnyJob) -> None:
        try:
            await job.recorded.wait()
            if job.stage == "withdrawn":
                return
            if job.stage != "running":
                await self._stopped(job)
                return
            job.attempts += 1
            job.started_at, job.began = time.time(), anyio.current_time()
            job.progress.begin_attempt(job.attempts)
            job.changed.fire()
            self.note(job, "job.started", attempt=job.attempts)
            self._tasks.start_soon(self._publish_progress, job, name=f"progress {job.id}")
            await self._work(job)
        except Exception as error:  # noqa: BLE001 - a job whose end cannot be recorded must not end the daemon
            await self._abandon(job, incident(error, job=job.id, kind=job.kind.name))
        finally:
            self.settle(self.gate.finish(job.id))
            if job.stage == "queued":
                self.readmit(job)
            job.changed.fire()  # a resume waits for the job to leave the gate
            self.on_end()

    async def _abandon(self, job: AnyJob, fault: WireError) -> None:
        """Ends a job that an unforeseen error has stopped on its way: its followers get the fault."""
        if job.move("abandon"):
            job.ended_at = job.ended_at or time.time()
            job.fail(fault)
            with anyio.CancelScope(shield=True):
                if not job.end_recorded:
                    await self._write_end(job, "failed", fault)
            job.drop_request()
            self._jobs.leave(job, remember=True)
            job.ended.set()
            job.changed.fire()

    async def _publish_progress(self, job: AnyJob) -> None:
        """Publishes progress to the activity's watchers. Attached requests take their own snapshots."""
        published: Counters | None = None
        while job.state == "running" and not job.ended.is_set():
            if self._activity.watchers and (now := job.progress.snapshot()) != published:
                published = now
                self._activity.progress(job.id, model=job.model, **msgspec.structs.asdict(now))
            with anyio.move_on_after(PROGRESS_INTERVAL_SECONDS):
                await job.ended.wait()
        self._activity.forget_progress(job.id)

    async def _work(self, job: Job[W, V]) -> None:
        try:
            value = await record.with_long_lists_encoded(await job.kind.work(job))
        except Stopped:
            await self._stopped(job)
        except WireError as fault:
            await self.end(job, "failed", fault)
        except Exception as error:  # noqa: BLE001 - reported as an incident; the daemon and the other jobs go on
            await self.end(job, "failed", incident(error, job=job.id, kind=job.kind.name))
        else:
            await self.end(job, "done", value)

    async def _stopped(self, job: AnyJob) -> None:
        """The work has stopped: the reason for its stop decides what the job becomes."""
        match job.move("stop"):
            case "parked":
                self._end_parked(job)
            case "paused":
                await self.record_pause(job)
            case "ending":
                await self.record_cancel(job)

    async def record_pause(self, job: AnyJob) -> None:
        with anyio.CancelScope(shield=True):
            if error := await self.ledger.settle(job.id, state="paused"):
                log.warning("a pause could not be recorded yet", job=job.id, error=str(error))
        self.note(job, "job.paused")
        job.changed.fire()

    def leave(self, job: AnyJob) -> None:
        """Leaves a job as the daemon stops. It stays open in the ledger: the next start takes it up."""
        if job.move("leave"):
            self._end_parked(job)

    def _end_parked(self, job: AnyJob) -> None:
        hint = "Ask for it again when the daemon is back: it has lost what the client gave it."
        if job.kind.goes_on(job):
            hint = f"The job goes on at the next start; follow it with `modelctl attach {job.id}`."
        job.failure = Interrupted(
            f"the daemon stopped before job {job.id} had ended",
            hint=hint,
            details={"job": job.id},
        )
        self.note(job, "job.parked")
        job.ended.set()
        job.changed.fire()

    # -- the two records around a publication

    async def about_to_publish(self, job: AnyJob, intent: Value) -> None:
        """Call it in the publisher's turn, before the name changes: after a crash the restart knows what to check."""
        await self.ledger.update(
            job.id,
            state="running",
            started_at=job.started_at,
            attempts=job.attempts,
            result=record.encode(_with_job(intent, job)),
        )

    async def published(self, job: AnyJob, value: Value) -> None:
        """Call it in the same turn: after a crash at most one publication lacks its record, unless a full disk does not
        take them; then each lacks it until there is room. What has been announced decides after a crash."""
        job.ended_at = time.time()
        result = record.encode(_with_job(value, job))
        error = await self.ledger.settle(
            job.id, state="done", ended_at=job.ended_at, result=result, **record.request_at_end(job)
        )
        if error is not None:
            log.warning("a publication could not be recorded yet", job=job.id, error=str(error))
        job.end_recorded = True

    # -- ends

    async def end(self, job: Job[W, V], state: End, outcome: V | WireError) -> None:
        """Returns when the ledger has the end, or could not take it, and the waiters of the job are awake."""
        if job.move("end"):
            await self._record_end(job, state, outcome)
        else:
            await job.ended.wait()

    async def record_cancel(self, job: AnyJob) -> None:
        """For a job that is `ending` because it was cancelled."""
        fault = Cancelled(f"job {job.id} was cancelled: {job.cancel_reason}")
        with anyio.CancelScope(shield=True):
            await job.kind.cancelled(job, fault)
        await self._record_end(job, "cancelled", fault)

    async def _record_end(self, job: Job[W, V], state: End, outcome: V | WireError) -> None:
        job.ended_at = job.ended_at or time.time()
        if not isinstance(outcome, WireError):
            outcome = _with_job(outcome, job)
        with anyio.CancelScope(shield=True):
            if not job.end_recorded:
                await self._write_end(job, state, outcome)
        job.move(state)
        job.drop_request()
        if isinstance(outcome, WireError):
            job.fail(outcome)
        else:
            job.value, job.failure = outcome, None
            job.progress.phase("done")
        self._jobs.leave(job, remember=True)
        self.last_end = anyio.current_time()
        if state == "failed":
            self._on_failed(job)
        self.note(job, f"job.{state}", **record.end_fields(job))
        job.ended.set()
        job.changed.fire()

    async def _write_end(self, job: AnyJob, state: End, outcome: Value | WireError) -> None:
        failed = isinstance(outcome, WireError)
        stored = record.encode(record.failure_of(outcome) if isinstance(outcome, WireError) else outcome)
        error = await self.ledger.settle(
            job.id,
            state=state,
            started_at=job.started_at,
            ended_at=job.ended_at,
            attempts=job.attempts,
            result=None if failed else stored,
            error=stored if failed else None,
            **record.request_at_end(job),
        )
        if error is not None:
            # The work has ended either way, so its followers learn of it now.
            log.warning("the end of a job could not be recorded yet", job=job.id, state=state, error=str(error))

    def note(self, job: AnyJob, event: str, **fields: object) -> None:
        """Records an event of the job in the activity log."""
        self._activity.record(event, job=job.id, model=job.model, peer=job.peer, kind=job.kind.name, **fields)


def _with_job(value: V, job: AnyJob) -> V:
    """The value with the id of its job: the store, which makes the value, does not know it."""
    return msgspec.structs.replace(value, job=job.id) if "job" in value.__struct_fields__ else value
