"""All live jobs: submitted, joined, attached to, controlled. One object, one event loop, no locks.

The order is the promise: a job is in the ledger before the daemon acknowledges it, and its end is in the ledger before
any client learns of it. Whatever happens between the two, a restart finds the job and ends it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from modeld.activity import Activity
from modeld.jobs import record
from modeld.jobs.admission import Gate, Owed
from modeld.jobs.failures import Failures
from modeld.jobs.ids import new_id
from modeld.jobs.index import JobIndex
from modeld.jobs.job import AnyJob, Job, Kind, Signal, V, W
from modeld.jobs.ledger import JobRecord, Ledger, TokenTaken
from modeld.jobs.runner import Runner
from modelwire.errors import Draining, InvalidRequest, NoSpace, NotFound, QueueFull, WireError
from modelwire.requests import Write
from modelwire.vocabulary import OnDisconnect, clamp_priority

_ECHO = 100
"""Characters of a client's text that an error repeats: an id has 26."""


_LONG_RESULT = 100_000
"""Bytes of a result after which a list lets other requests go first: the verification of 10,000 models has 2.8 MB, and
reading it takes 8 ms."""


def _no_room() -> bool:
    return False


class Attachment(Generic[W, V]):
    """One request that follows a job. A job that is not to continue stops when the last one that holds it leaves, if
    that one `asked` for the work.

    A request that only attaches ends nothing by leaving: the job may have run unattended before. It holds the job while
    it is there, unless it is another user's.
    """

    __slots__ = ("_asked", "_board", "_holds", "_left", "job", "joined")

    def __init__(self, board: Board, job: Job[W, V], *, joined: bool, holds: bool = True, asked: bool = True) -> None:
        self._asked = asked
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
            self._board.left(self.job, asked=self._asked)

    def __enter__(self) -> Attachment[W, V]:
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
        make_room: Callable[[], bool] = _no_room,
        trusted: Callable[[int], bool] = lambda _uid: True,
        user_of: Callable[[int], int] = lambda uid: uid,
    ) -> None:
        """`make_room` is called when a full disk does not take the record of a job that frees space. It returns whether
        it freed some. Of a user that is not `trusted` only so many jobs may fail in a minute. `user_of` returns the uid
        that counts for another."""
        self.jobs = JobIndex()
        self._kinds: dict[str, Kind[Any, Any]] = {}
        self.runner = Runner(gate, ledger, activity, self.jobs, tasks, on_failed=self._failed, user_of=user_of)
        self._gate = gate
        self._ledger = ledger
        self._tasks = tasks
        self._make_room = make_room
        self._trusted = trusted
        self._user_of = user_of
        self._failures = Failures(anyio.current_time)
        self.draining = False
        self.attached = 0
        """Attachments whose request has not had its reply yet."""
        self.departure = Signal()
        """Fires when an attachment leaves."""

    def register(self, kind: Kind[Any, Any]) -> None:
        """Call it before the first job of this kind is submitted or restored."""
        self._kinds[kind.name] = kind

    def kind_of(self, row: JobRecord) -> Kind[Any, Any]:
        return self._kinds.get(row.kind) or record.Unreadable(row.kind)

    @property
    def has_work(self) -> bool:
        """Whether a job waits or runs for which the daemon stays."""
        return any(job.state != "paused" and not job.kind.is_background(job.request) for job in self.jobs)

    @property
    def is_working(self) -> bool:
        """Whether a job runs, work in the background aside."""
        return any(job.state == "running" and not job.kind.is_background(job.request) for job in self.jobs)

    # -- submitting

    async def submit(
        self,
        kind: Kind[W, V],
        request: W,
        *,
        key: str,
        model: str | None,
        peer: int,
        accepted_for: str | None = None,
        secret: object = None,
    ) -> Attachment[W, V]:
        """Joins the job that already does this work, or admits a new one. On return the job is durable.

        `key` is equal for requests that ask for the same outcome, and begins with the name of the kind.
        """
        if self.draining:
            raise _draining()
        while same := self.jobs.same_work(key, peer, request.token):
            if request.token is not None:
                _check_token(same, key, request.token)
            try:
                if joined := await self._join(same, request, peer):
                    return joined
            except TokenTaken:
                if known := await self._finished_with_token(request.token, key, peer):
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
            accepted_for=accepted_for,
            secret=secret,
        )
        try:
            self._failures.check(self._user_of(peer))
            standing = self._gate.offer(self.runner.ticket(job))
        except QueueFull:
            if known := await self._finished_with_token(request.token, key, peer):
                return known
            raise
        job.order = standing.order
        self.jobs.enter(job)
        attachment = Attachment(self, job, joined=False)
        self.runner.place(job, standing)
        try:
            # Shielded: a job that is in the ledger and was not acknowledged would run unasked after a restart.
            with anyio.CancelScope(shield=True):
                await self._write(job, lambda: self._ledger.insert(record.of(job)))
        except BaseException as error:
            self._withdraw(job)
            attachment.leave()
            if isinstance(error, TokenTaken) and (known := await self._finished_with_token(request.token, key, peer)):
                return known
            raise
        job.recorded.set()
        self.runner.note(job, "job.queued", position=job.position, priority=job.priority)
        return attachment

    def _failed(self, job: AnyJob) -> None:
        if not self._trusted(job.peer):
            self._failures.note(self._user_of(job.peer))

    async def _write(self, job: AnyJob, write: Callable[[], Awaitable[None]]) -> None:
        try:
            await write()
        except NoSpace:
            if not (job.kind.frees_space and await anyio.to_thread.run_sync(self._make_room)):
                raise
            await write()

    async def _join(self, job: AnyJob, request: Write, peer: int) -> Attachment[Any, Any] | None:
        """None when the job could not be recorded: it never was, for a reason that may be that of its own request."""
        attachment = Attachment(self, job, joined=True)
        try:
            await job.recorded.wait()
            if job.stage == "withdrawn":
                attachment.leave()
                return None
            if (token := request.token) is not None and token != job.token:
                await self._write(job, lambda: self._ledger.join(job.id, peer, token))
                self.jobs.join(job, peer, token)
            if request.on_disconnect == "continue" and job.on_disconnect == "cancel":
                await self.set_on_disconnect(job, "continue")
            if clamp_priority(request.priority) < job.priority:
                await self.prioritize(job, request.priority)
            await self.resume(job)
        except BaseException:  # a cancelled request must not hold the job
            attachment.leave()
            raise
        return attachment

    async def _finished_with_token(self, token: str | None, key: str, peer: int) -> Attachment[Any, Any] | None:
        """The job that has this token, also when it ended long ago."""
        known = None if token is None else await self._ledger.by_token(peer, token)
        if known is None or token is None:
            return None
        ended = self._from_row(known)
        _check_token(ended, key, token)
        return Attachment(self, ended, joined=True)

    def _withdraw(self, job: AnyJob) -> None:
        job.move("withdraw")
        self.jobs.leave(job, remember=False)
        if job.state == "queued":
            self.runner.settle(self._gate.withdraw(job.id))
        job.recorded.set()

    def attach(self, job: Job[W, V], peer: int) -> Attachment[W, V]:
        return Attachment(self, job, joined=True, holds=peer == job.peer, asked=False)

    def left(self, job: AnyJob, *, asked: bool) -> None:
        """Called by an attachment that leaves. The last one that holds the job ends it if it asked for the work, unless
        the job is to continue."""
        self.attached -= 1
        self.departure.fire()
        last = asked and job.holders == 0
        if last and job.on_disconnect == "cancel" and job in self.jobs and not self.draining:
            self._tasks.start_soon(self._cancel_abandoned, job)

    async def _cancel_abandoned(self, job: AnyJob) -> None:
        if job.holders == 0 and job.state in ("queued", "running") and not self.draining:
            await self.cancel(job, "its last client left")

    # -- reading

    async def find(self, job_id: str) -> AnyJob:
        if job := self.jobs.get(job_id):
            return job
        if known := await self._ledger.get(job_id):
            return self._from_row(known)
        raise NotFound(
            f"there is no job {job_id[:_ECHO]!r}",
            hint="List the jobs with `modelctl jobs`; a finished one is forgotten after the time in [jobs] keep.",
        )

    async def recent(self, limit: int, state: str | None) -> list[AnyJob]:
        """The newest first: live jobs as they are now, finished ones from the ledger. A job that is not on the disk yet
        is left out: a crash would make it one that never was."""
        stored = await self._ledger.recent(limit, state)
        found = {job.id: job for job in self.jobs if job.recorded.is_set()}
        for row in stored:
            if row.id not in found:
                found[row.id] = self._from_row(row)
                if len(row.result or b"") > _LONG_RESULT:
                    await anyio.lowlevel.checkpoint()
        jobs = [job for job in found.values() if state is None or job.state == state]
        return sorted(jobs, key=lambda job: job.id, reverse=True)[:limit]

    def _from_row(self, row: JobRecord) -> AnyJob:
        """The job in memory, if there is one: its end may not be in the ledger yet."""
        return self.jobs.get(row.id) or record.past(row, self.kind_of(row))

    # -- control

    async def cancel(self, job: AnyJob, why: str) -> None:
        """A running job stops when its work next checks `stopped()`; any other has ended on return."""
        if job.stage == "ending" or job not in self.jobs:
            return
        job.cancel_reason = why
        # A cancelled job takes time to stop. A request that comes meanwhile must not share its end.
        self.jobs.close_to_joining(job)
        if job.move("cancel") == "ending":
            self.runner.settle(self._gate.withdraw(job.id))
            await self.runner.record_cancel(job)

    async def pause(self, job: AnyJob) -> None:
        """Raises `QueueFull` when its user has as many paused jobs as may wait: otherwise any number of jobs could be
        admitted, each paused before the next."""
        if job.stage in ("queued", "running"):
            limit = self._gate.limits.waiting_per_peer
            user, paused_now = self._user_of(job.peer), ("paused", "pausing")
            paused = sum(self._user_of(other.peer) == user and other.stage in paused_now for other in self.jobs)
            if paused >= limit:
                raise QueueFull(
                    f"{paused} jobs of uid {user} are paused already and its limit is {limit}",
                    hint="Resume or cancel a paused job first; `[limits] waiting_per_peer` sets the limit.",
                    details={"peer_paused": paused, "peer_limit": limit},
                )
        await self._pause(job)

    async def _pause(self, job: AnyJob) -> None:
        if job.move("pause") == "paused":
            self.runner.settle(self._gate.withdraw(job.id))
            await self.runner.record_pause(job)

    async def resume(self, job: AnyJob) -> None:
        """Asks for a place as a new job does, so it raises `QueueFull` when there is none."""
        while job.stage == "pausing" or (job.stage == "paused" and job.id in self._gate):
            await job.changed.wait()
        if self.draining and job.state == "paused" and job.stage != "ending":
            raise _draining()
        if job.stage != "paused":
            return
        standing = self._gate.offer(self.runner.ticket(job))
        job.move("resume")
        job.position = standing.position
        job.progress.phase("queued")
        self.runner.settle(Owed((), standing.moves))
        self.runner.note(job, "job.resumed")
        with anyio.CancelScope(shield=True):
            try:
                await self._ledger.update(job.id, state="queued")
            except WireError:
                await self._pause(job)
                raise
        # Unless the job was cancelled, paused again or parked while the ledger was written: then it has no place.
        if job.state == "queued" and self._gate.holds_slot(job.id):
            self.runner.settle(Owed((job.id,)))
        job.changed.fire()

    async def prioritize(self, job: AnyJob, priority: int) -> None:
        if job.terminal or job.stage == "ending":
            return
        job.set_priority(clamp_priority(priority))
        if job.state == "queued":
            self.runner.settle(self._gate.prioritize(job.id, job.priority))
        await self._ledger.update(job.id, priority=job.priority)

    async def set_on_disconnect(self, job: AnyJob, wanted: OnDisconnect) -> None:
        """Says what becomes of the job when the last client that asked for it leaves."""
        if job.terminal or job.stage == "ending":
            return
        job.on_disconnect = wanted
        await self._ledger.update(job.id, on_disconnect=wanted)

    async def change_request(self, job: Job[W, V], request: W) -> None:
        """Gives the work other settings, as if it had been submitted with them: a pause and a restart keep them. Not
        once its end is being recorded, which says what is kept of the request."""
        if job.terminal or job.stage == "ending" or job.ended_at is not None:
            return
        job.set_request(request)
        await self._ledger.update(job.id, request=record.encode(request))


def _draining() -> Draining:
    return Draining(
        "the daemon is stopping and takes no new work",
        hint="Ask again when it is back; accepted jobs go on by themselves.",
    )


def _check_token(job: AnyJob, key: str, token: str) -> None:
    """A token stands for one piece of work: a request for other work must not get the outcome of the first."""
    if job.key != key:
        of = f" of {job.model!r}" if job.model else ""
        raise InvalidRequest(
            f"$.token: {token!r} stands for job {job.id}, a {job.kind.name}{of}; this request asks for something else",
            hint=f"Use a new token for new work; `modelctl job {job.id}` shows what became of the job.",
            details={"job": job.id},
        )
