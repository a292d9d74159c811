"""The two records that a job makes around a publication; the store calls for them in the publisher's turn."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from modeld.jobs.job import Job
from modeld.jobs.runner import Runner
from modelwire.values import Value

V = TypeVar("V", bound=Value)


class PublicationNotes(Generic[V]):
    """Ties a publication to its job: see `Runner.about_to_publish`."""

    def __init__(self, runner: Runner, job: Job[Any, V]) -> None:
        self._runner = runner
        self._job = job

    async def about_to_publish(self, value: V, /) -> None:
        await self._runner.about_to_publish(self._job, value)

    async def published(self, value: V, /) -> None:
        await self._runner.published(self._job, value)
