"""A write as its asker sees it: admitted or joined, followed, and answered with what its job came to."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from modeld.jobs.job import Job
from modeld.operations.calling import Call
from modeld.operations.following import follow
from modeld.operations.house import House
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


class PublicationNotes:
    """Ties a change of what is visible to its job: see `Runner.about_to_publish`."""

    def __init__(self, house: House, job: Job) -> None:
        self._runner = house.board.runner
        self._job = job

    async def about_to_publish(self, value: Value, /) -> None:
        await self._runner.about_to_publish(self._job, value)

    async def published(self, value: Value, /) -> None:
        await self._runner.published(self._job, value)
