"""What a job does when the store changes a name for it: it gives up its slot while another program has the name, and
makes two records around the change."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

from modeld.jobs.job import Job
from modeld.jobs.runner import Runner
from modelwire.values import Value

V = TypeVar("V", bound=Value)


class PublicationNotes(Generic[V]):
    """Ties a change to its job: see `Runner.aside`, `about_to_publish` and `published`."""

    def __init__(self, runner: Runner, job: Job[Any, V]) -> None:
        self._runner = runner
        self._job = job

    def waits_for(self, holder: str, /) -> AbstractAsyncContextManager[None]:
        self._runner.note(self._job, "name.waiting", message=f"waits for {holder}")
        return self._runner.aside(self._job)

    async def about_to_publish(self, value: V, /) -> None:
        await self._runner.about_to_publish(self._job, value)

    async def published(self, value: V, /) -> None:
        await self._runner.published(self._job, value)
