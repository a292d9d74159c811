"""A write: checked, admitted as a job or joined to one, followed, and answered with the outcome of its job."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar

import anyio
import msgspec

from modeld.jobs.board import Attachment
from modeld.jobs.job import AnyJob, Job, Kind, V, W
from modeld.jobs.publication import PublicationNotes
from modeld.operations.follow import follow
from modeld.operations.operation import Call, Caller, SlowOperation
from modeld.progress import JobProgress
from modeld.store import Digest, ModelName, Requester
from modelwire.errors import DigestMismatch
from modelwire.requests import ModelPull
from modelwire.values import Added
from modelwire.vocabulary import Phase

A = TypeVar("A", bound=Added)

_LOCAL_PHASES: Final[frozenset[Phase]] = frozenset({"checking_local", "copy", "link", "verify"})
_QUARANTINED: Final = ("path", "expected_sha256", "actual_sha256", "quarantine_path", "source")


class Submission(NamedTuple, Generic[W]):
    """A request that has been checked."""

    request: W
    """As the ledger stores it."""

    key: str
    """Equal for requests that ask for the same outcome: they share one job. It begins with the operation's name."""

    model: str | None
    """The name of the model that it is about."""

    secret: object = None
    """What the work needs and the ledger may not have."""


class JobOperation(SlowOperation[W, V], Kind[W, V]):
    @abstractmethod
    def check(self, caller: Caller, request: W, /) -> Submission[W]:
        """Refuses, before anything is queued, what can be refused without reading the disk."""

    async def run(self, call: Call, request: W, /) -> V:
        return (await follow(call, await self.submit(call, request))).outcome()

    async def submit(self, call: Call, request: W, /) -> Attachment[W, V]:
        """Admits the request as a job, or joins it to one."""
        wanted, accepted_for = self.check(call.caller, request), None
        if (changed := self.changes(wanted.request)) is not None:
            await self.check_change(call.caller.uid, changed)
            accepted_for = await self.standing(changed)
        return await self._services.board.submit(
            self,
            wanted.request,
            key=wanted.key,
            model=wanted.model,
            peer=call.caller.uid,
            accepted_for=accepted_for,
            secret=wanted.secret,
        )

    async def check_change(self, _uid: int, _name: str, /) -> None:
        """Refuses at once what the work would refuse, maybe after hours in the queue."""

    def pull_of(self, _request: W, /) -> ModelPull | None:
        """The pull that the work does, for clients that list what is coming."""
        return None

    def key(self, *parts: object) -> str:
        """The key of work that is the same when these parts are. Make the caller's uid one of them: rights differ."""
        return f"{self.name} {msgspec.json.encode(parts).decode()}"

    async def standing(self, name: str, /) -> str:
        return await self._services.store.models.standing(name)

    def notes(self, job: Job[W, V]) -> PublicationNotes[V]:
        return PublicationNotes(self._services.board.runner, job)

    async def with_phases(self, job: Job[W, V], path: str, work: Awaitable[A]) -> A:
        """Awaits work on this machine, and records its phases as events for every watcher."""
        record = partial(self._services.activity.record, job=job.id, model=job.model, peer=job.peer)
        loop = asyncio.get_running_loop()
        shown: Phase = "queued"

        def on_progress(progress: JobProgress) -> None:
            nonlocal shown
            before, shown = shown, progress.current_phase
            # The hash of a copy runs along with it, and is complete when its name is next.
            phase = "verify" if (before, shown) == ("copy", "publish") else shown
            if shown != before and phase in _LOCAL_PHASES:
                with suppress(RuntimeError):  # the loop is gone
                    loop.call_soon_threadsafe(partial(record, f"phase.{phase}", path=path))

        with job.progress.heard_by(on_progress):
            made = await work
        await asyncio.sleep(0)  # for the phases that are recorded soon
        record("phase.ready", path=made.path)
        return made

    @asynccontextmanager
    async def outcome_recorded(self, job: Job[W, V], source: str) -> AsyncIterator[None]:
        """Records a digest mismatch, and the quarantine of its bytes as an event. What the job leaves on the disk is
        recorded however it ends."""
        try:
            yield
        except DigestMismatch as fault:
            if "quarantine_path" in fault.details:
                await asyncio.sleep(0)  # for the phases that are recorded soon
                quarantined = {name: fault.details.get(name) for name in _QUARANTINED}
                self._services.activity.record(
                    "phase.quarantine", job=job.id, model=job.model, peer=job.peer, **quarantined
                )
            await self.record_mismatch(job, source, fault)
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._services.store.left_files.write()

    async def record_mismatch(self, job: Job[W, V], source: str, fault: DigestMismatch) -> None:
        """Records it in the history of the model that the job names."""
        expected, actual = fault.details.get("expected_sha256"), fault.details.get("actual_sha256")
        if job.model is None or not isinstance(expected, str) or not isinstance(actual, str):
            return
        store, origin = self._services.store, origin_of(source, fault)
        standing = await store.index.in_thread(partial(store.index.entry, ModelName.parse(job.model)))
        if standing is not None:
            await store.history.record_refused(
                standing.name, Digest.parse(expected), Digest.parse(actual), origin, requester_of(job)
            )


def origin_of(source: str, fault: DigestMismatch) -> str:
    """The source, with the server that gave the bytes when it is another."""
    server = fault.details.get("source")
    return source if server is None or server in source else f"{source} ({server})"


def requester_of(job: AnyJob) -> Requester:
    return Requester(peer=job.peer, job=job.id)
