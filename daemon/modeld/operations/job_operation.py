"""A write: checked, admitted as a job or joined to one, followed, and answered with what its job came to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, NamedTuple

import msgspec

from modeld.jobs.job import Job, Kind, V, W
from modeld.jobs.publication import PublicationNotes
from modeld.operations.follow import follow
from modeld.operations.operation import Call, Caller, SlowOperation
from modeld.store import Digest, ModelName, Requester
from modelwire.errors import DigestMismatch


class Submission(NamedTuple, Generic[W]):
    """What a request asks for, once it has been checked."""

    request: W
    """As the ledger holds it."""

    key: str
    """Equal for requests that ask for the same outcome: they share one job. It begins with the operation's name."""

    model: str | None
    """The one that it is about."""


class JobOperation(SlowOperation[W, V], Kind[W, V]):
    @abstractmethod
    def check(self, caller: Caller, request: W, /) -> Submission[W]:
        """Refuses what can be refused without looking at the disk, before anything is queued."""

    async def run(self, call: Call, request: W, /) -> V:
        wanted = self.check(call.caller, request)
        attachment = await self._services.board.submit(
            self, wanted.request, key=wanted.key, model=wanted.model, peer=call.caller.uid
        )
        return (await follow(call, attachment)).outcome()

    def key(self, *parts: object) -> str:
        """For work that is the same when these parts are. The caller's uid should be one: rights may differ."""
        return f"{self.name} {msgspec.json.encode(parts).decode()}"

    def notes(self, job: Job[W, V]) -> PublicationNotes[V]:
        return PublicationNotes(self._services.board.runner, job)

    @asynccontextmanager
    async def mismatch_kept(self, job: Job[W, V], source: str) -> AsyncIterator[None]:
        """A model whose name was asked for with other bytes than came has that in its history."""
        try:
            yield
        except DigestMismatch as fault:
            expected, actual = fault.details.get("expected_sha256"), fault.details.get("actual_sha256")
            if job.model is not None and isinstance(expected, str) and isinstance(actual, str):
                giver = fault.details.get("source")
                told = source if giver is None or giver in source else f"{source} ({giver})"
                store = self._services.store
                standing = store.index.entry(ModelName.parse(job.model))
                if standing is not None:
                    await store.history.record_refused(
                        standing.name, Digest.parse(expected), Digest.parse(actual), told, requester_of(job)
                    )
            raise


def requester_of(job: Job[W, V]) -> Requester:
    return Requester(peer=job.peer, job=job.id)
