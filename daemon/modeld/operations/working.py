"""A write as its asker sees it: admitted or joined, followed, and answered with what its job came to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from modeld.jobs.job import Job
from modeld.operations.calling import Call
from modeld.operations.following import follow
from modeld.operations.house import House
from modeld.store import Digest, ModelName, Requester
from modelwire.errors import DigestMismatch
from modelwire.operations import BY_REQUEST
from modelwire.requests import Write
from modelwire.values import Value

T = TypeVar("T", bound=Value)


async def as_job(house: House, call: Call, request: Write, key: str, model: str | None, value: type[T]) -> T:
    """`key` is equal for requests that ask for the same outcome: they share one job."""
    attachment = await house.board.submit(
        request, kind=BY_REQUEST[type(request)].name, key=key, model=model, peer=call.caller.uid
    )
    job = await follow(call, attachment)
    if job.failure is not None:
        raise job.failure
    return msgspec.convert(job.value, value, from_attributes=True)


def key_of(request: Write, uid: int, *parts: object) -> str:
    """For work that is the same when these parts are. The asker is one of them: rights may differ."""
    return f"{BY_REQUEST[type(request)].name} {msgspec.json.encode([*parts, uid]).decode()}"


@asynccontextmanager
async def refusals_kept(house: House, job: Job, source: str) -> AsyncIterator[None]:
    """A model whose name is asked for with other bytes than are expected tells so afterwards, in its history."""
    try:
        yield
    except DigestMismatch as fault:
        expected, actual = fault.details.get("expected_sha256"), fault.details.get("actual_sha256")
        if job.model is not None and isinstance(expected, str) and isinstance(actual, str):
            giver = fault.details.get("source")
            told = source if giver is None or giver in source else f"{source} ({giver})"
            standing = house.store.index.entry(ModelName.parse(job.model))
            if standing is not None:
                requester = Requester(peer=job.peer, job=job.id)
                await house.store.history.refused(
                    standing.name, Digest.parse(expected), Digest.parse(actual), told, requester
                )
        raise


class PublicationNotes:
    """Ties a change of what is visible to its job: see `Runner.about_to_publish`."""

    def __init__(self, house: House, job: Job) -> None:
        self._runner = house.board.runner
        self._job = job

    async def about_to_publish(self, value: Value, /) -> None:
        await self._runner.about_to_publish(self._job, value)

    async def published(self, value: Value, /) -> None:
        await self._runner.published(self._job, value)
