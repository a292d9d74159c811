"""A write: checked, admitted as a job or joined to one, followed, and answered with the outcome of its job."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic, NamedTuple

import msgspec

from modeld.jobs.job import AnyJob, Job, Kind, V, W
from modeld.jobs.publication import PublicationNotes
from modeld.operations.follow import follow
from modeld.operations.operation import Call, Caller, SlowOperation
from modeld.store import Digest, ModelName, Requester
from modelwire.errors import DigestMismatch


class Submission(NamedTuple, Generic[W]):
    """A request that has been checked."""

    request: W
    """As the ledger stores it."""

    key: str
    """Equal for requests that ask for the same outcome: they share one job. It begins with the operation's name."""

    model: str | None
    """The name of the model that it is about."""


class JobOperation(SlowOperation[W, V], Kind[W, V]):
    @abstractmethod
    def check(self, caller: Caller, request: W, /) -> Submission[W]:
        """Refuses, before anything is queued, what can be refused without reading the disk."""

    async def run(self, call: Call, request: W, /) -> V:
        wanted = self.check(call.caller, request)
        attachment = await self._services.board.submit(
            self, wanted.request, key=wanted.key, model=wanted.model, peer=call.caller.uid
        )
        return (await follow(call, attachment)).outcome()

    def key(self, *parts: object) -> str:
        """The key of work that is the same when these parts are. Make the caller's uid one of them: rights differ."""
        return f"{self.name} {msgspec.json.encode(parts).decode()}"

    def notes(self, job: Job[W, V]) -> PublicationNotes[V]:
        return PublicationNotes(self._services.board.runner, job)

    @asynccontextmanager
    async def mismatch_recorded(self, job: Job[W, V], source: str) -> AsyncIterator[None]:
        """Records a digest mismatch in the history of the model that the job names."""
        try:
            yield
        except DigestMismatch as fault:
            expected, actual = fault.details.get("expected_sha256"), fault.details.get("actual_sha256")
            if job.model is not None and isinstance(expected, str) and isinstance(actual, str):
                server = fault.details.get("source")
                origin = source if server is None or server in source else f"{source} ({server})"
                store = self._services.store
                standing = await store.index.in_thread(partial(store.index.entry, ModelName.parse(job.model)))
                if standing is not None:
                    await store.history.record_refused(
                        standing.name, Digest.parse(expected), Digest.parse(actual), origin, requester_of(job)
                    )
            raise


def requester_of(job: AnyJob) -> Requester:
    return Requester(peer=job.peer, job=job.id)
