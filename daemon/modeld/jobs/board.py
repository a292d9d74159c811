"""All live jobs: asked for, joined, attached to, controlled. One object, one event loop, no locks.

The order of things is the promise: a job is in the ledger before it is acknowledged, and its end is in the ledger
before anybody is told. Whatever happens between the two, a restart finds the job and ends it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc
import msgspec

from modeld.activity import Activity
from modeld.jobs import record
from modeld.jobs.admission import Gate, Owed, Standing
from modeld.jobs.ids import new_id
from modeld.jobs.job import Job, Signal
from modeld.jobs.ledger import JobRecord, Ledger, TokenTaken
from modeld.jobs.runner import Runner
from modeld.jobs.tables import Tables
from modelwire.errors import Cancelled, Draining, Internal, InvalidRequest, NoSpace, NotFound, QueueFull, WireError
from modelwire.requests import ModelPull, Write
from modelwire.vocabulary import clamp_priority

_ECHO = 100
"""Characters of a peer's own text that an error repeats: an id has 26."""


def _no_relief(_kind: str) -> bool:
    return False


class Attachment:
    """One asker's hold on a job. When the last one leaves a job that is not to go on alone, the job stops.

    Who only looks at the job of somebody else does not hold it: that would let a reader end it by leaving.
    """

    __slots__ = ("_board", "_holds", "_left", "job", "joined")

    def __init__(self, board: Board, job: Job, *, joined: bool, holds: bool = True) -> None:
        self._board = board
        self._holds = holds
        self._left = False
        self.job = job
        self.joined = joined
        job.watchers += 1
        job.holders += holds
        board.attached += 1

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self.job.watchers -= 1
            self.job.holders -= self._holds
            self._board.left(self.job, held=self._holds)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class Board:
    def __init__(
        self,
        gate: Gate,
        ledger: Ledger,
        activity: Activity,
        tasks: anyio.abc.TaskGroup,
        *,
        relief: Callable[[str], bool] = _no_relief,
    ) -> None:
        """`relief` is asked when a job cannot be recorded for want of space: whether room was made for this kind."""
        self.jobs = Tables()
        self.runner = Runner(gate, ledger, activity, self.jobs, tasks)
        self._gate = gate
        self._ledger = ledger
        self._tasks = tasks
        self._relief = relief
        self.draining = False
        self.attached = 0
        """Askers who have not been told the end of their job yet."""
        self.departure = Signal()

    # -- asking for work

    async def submit(self, request: Write, *, kind: str, key: str, model: str | None, peer: int) -> Attachment:
        """Joins the job that already does this, or admits a new one. On return the job is durable."""
        if self.draining:
            raise _draining()
        if same := self.jobs.same_work(key, peer, request.token):
            if request.token is not None:
                _check_token(same, key, request.token)
            try:
                return await self._join(same, request, peer)
            except TokenTaken:
                if known := await self._finished_under(request.token, key, peer):
                    return known
                raise
        job = Job(
            id=new_id(),
            kind=kind,
            key=key,
            request=request,
            peer=peer,
            priority=clamp_priority(request.priority),
            on_disconnect=request.on_disconnect,
            created_at=time.time(),
            model=model,
            token=request.token,
        )
        try:
            standing = self._gate.offer(self.runner.ticket(job))
        except QueueFull:
            if known := await self._finished_under(request.token, key, peer):
                return known
            raise
        job.order = standing.order
        self.jobs.enter(job)
        attachment = Attachment(self, job, joined=False)
        self._take(job, standing)
        try:
            # Shielded: a job that the ledger has and nobody was told of would run unasked after a restart.
            with anyio.CancelScope(shield=True):
                await self._written(job.kind, lambda: self._ledger.insert(record.of(job)))
        except BaseException as error:
            self._withdraw(job, error)
            if isinstance(error, TokenTaken) and (known := await self._finished_under(request.token, key, peer)):
                return known
            raise
        job.recorded.set()
        self.runner.note(job, "job.queued", position=job.position, priority=job.priority)
        return attachment

    async def _written(self, kind: str, write: Callable[[], Awaitable[None]]) -> None:
        try:
            await write()
        except NoSpace:
            if not self._relief(kind):
                raise
            await write()

    async def _join(self, job: Job, request: Write, peer: int) -> Attachment:
        attachment = Attachment(self, job, joined=True)
        try:
            await job.recorded.wait()
            if job.withdrawn:
                raise job.failure or Internal("the job that this request joined could not be recorded")
            if (token := request.token) is not None and token != job.token:
                await self._written(job.kind, lambda: self._ledger.join(job.id, peer, token))
                self.jobs.join(job, peer, token)
            if request.on_disconnect == "continue" and job.on_disconnect == "cancel":
                job.on_disconnect = "continue"
                await self._ledger.update(job.id, on_disconnect="continue")
            if clamp_priority(request.priority) < job.priority:
                await self.prioritize(job, request.priority)
            await self.resume(job)
        except BaseException:  # an asker that was cancelled must not hold the job
            attachment.leave()
            raise
        return attachment

    async def _finished_under(self, token: str | None, key: str, peer: int) -> Attachment | None:
        """The same token gives the same job, also when that job has ended long ago."""
        known = None if token is None else await self._ledger.by_token(peer, token)
        if known is None or token is None:
            return None
        ended = self._known(known)
        _check_token(ended, key, token)
        return Attachment(self, ended, joined=True)

    def _withdraw(self, job: Job, error: BaseException) -> None:
        job.withdrawn = True
        job.failure = error if isinstance(error, WireError) else None
        self.jobs.leave(job, remember=False)
        if job.state == "queued":
            self.runner.settle(self._gate.withdraw(job.id))
        job.recorded.set()

    def attach(self, job: Job, peer: int) -> Attachment:
        return Attachment(self, job, joined=True, holds=peer == job.peer)

    def left(self, job: Job, *, held: bool) -> None:
        """An asker has gone. Unless the job is to continue, the last one takes it along."""
        self.attached -= 1
        self.departure.fire()
        last = held and job.holders == 0
        if last and job.on_disconnect == "cancel" and job in self.jobs and not self.draining:
            self._tasks.start_soon(self._cancel_abandoned, job)

    async def _cancel_abandoned(self, job: Job) -> None:
        if job.holders == 0 and job.state in ("queued", "running") and not self.draining:
            await self.cancel(job, "its last client left")

    # -- looking

    async def find(self, job_id: str) -> Job:
        if job := self.jobs.get(job_id):
            return job
        if known := await self._ledger.get(job_id):
            return self._known(known)
        raise NotFound(
            f"there is no job {job_id[:_ECHO]!r}",
            hint="`modelctl jobs` lists them; a finished job is forgotten after the time in [jobs] keep",
        )

    async def recent(self, limit: int, state: str | None) -> list[Job]:
        """The newest first: live ones as they are now, finished ones from the ledger."""
        stored = await self._ledger.recent(limit, state)
        live = [job for job in self.jobs if state is None or job.state == state]
        past = [self._known(row) for row in stored if self.jobs.live(row.id) is None]
        past = [job for job in past if state is None or job.state == state]
        return sorted([*live, *past], key=lambda job: job.id, reverse=True)[:limit]

    def _known(self, row: JobRecord) -> Job:
        """What is remembered of a job goes before what is written: its end may not have been written down yet."""
        return self.jobs.get(row.id) or record.revive(row)

    # -- control

    async def cancel(self, job: Job, why: str) -> None:
        if job.ending or job not in self.jobs:
            return
        job.stop_words = why
        # A cancelled job takes its time to stop. Nobody who asks meanwhile is to share its fate.
        self.jobs.close_to_joining(job)
        if job.state == "running":
            self.runner.stop(job, "cancel")
            return
        if job.state == "queued":
            self.runner.settle(self._gate.withdraw(job.id))
        await self.runner.end(job, "cancelled", failure=Cancelled(f"job {job.id} was cancelled: {why}"))

    async def pause(self, job: Job) -> None:
        if job.ending:
            return
        if job.state == "running":
            self.runner.stop(job, "pause")
        elif job.state == "queued":
            self.runner.settle(self._gate.withdraw(job.id))
            await self.runner.set_paused(job)

    async def resume(self, job: Job) -> None:
        while job.state == "running" and job.meter.stop_reason == "pause":
            await job.changed.wait()
        if job.state != "paused" or job.ending or job not in self.jobs:
            return
        if self.draining:
            raise _draining()
        job.state = "queued"
        job.meter.stop_reason = None
        job.meter.phase("queued")
        with anyio.CancelScope(shield=True):
            try:
                await self._ledger.update(job.id, state="queued")
            except WireError:
                if not job.over():
                    await self.runner.set_paused(job)
                raise
        self._admit_resumed(job)

    def _admit_resumed(self, job: Job) -> None:
        """Unless it was cancelled, paused again, or parked by a stop while the disk was waited for."""
        if job.state == "queued" and not job.over() and job.id not in self._gate:
            self.runner.note(job, "job.resumed")
            self.readmit(job)

    def readmit(self, job: Job) -> None:
        """Back into the queue past its limits: this job was admitted before."""
        self._take(job, self._gate.restore(self.runner.ticket(job)))
        job.changed.fire()

    def _take(self, job: Job, standing: Standing) -> None:
        job.position = standing.position
        self.runner.settle(Owed((job.id,) if standing.position == 0 else (), standing.moves))

    async def prioritize(self, job: Job, priority: int) -> None:
        if job.terminal or job.ending:
            return
        job.priority = clamp_priority(priority)
        if job.share is not None:
            job.share.set_priority(job.priority)
        if job.state == "queued":
            self.runner.settle(self._gate.prioritize(job.id, job.priority))
        await self._ledger.update(job.id, priority=job.priority)

    async def limit(self, job: Job, max_rate: int | None) -> None:
        """Another rate for a pull, as if it had been asked for with that one: a pause and a restart keep it."""
        if job.terminal or job.ending or not isinstance(job.request, ModelPull):
            return
        job.request = msgspec.structs.replace(job.request, max_rate=max_rate)
        if job.share is not None:
            job.share.set_rate(max_rate)
        await self._ledger.update(job.id, request=record.encode(job.request))


def _draining() -> Draining:
    return Draining(
        "the daemon is stopping and takes no new work",
        hint="ask again when it is back; what was accepted before goes on by itself",
    )


def _check_token(job: Job, key: str, token: str) -> None:
    """A token stands for one piece of work: whoever asks for another under it must not be told how the first ended."""
    if job.key != key:
        of = f" of {job.model!r}" if job.model else ""
        raise InvalidRequest(
            f"$.token: {token!r} stands for job {job.id}, a {job.kind}{of}; this request asks for something else",
            hint="use a new token for new work; what became of the job: modelctl job " + job.id,
            details={"job": job.id},
        )
