"""What an update command asks for, and the notes of the steps of its job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from modeld.jobs.publication import PublicationNotes
from modeld.store import Digest, ModelName
from modelwire.knowledge.command import UpdateCommand, command_of
from modelwire.knowledge.document import ModelDocument
from modelwire.requests import ModelPull
from modelwire.values import Copied, Pulled, Updated


class Update(NamedTuple):
    """A command with what follows from it."""

    command: UpdateCommand
    document: ModelDocument
    name: ModelName
    """The one that its users use."""
    version: ModelName
    """Of this version alone."""

    @classmethod
    def of(cls, given: Any) -> Update:
        command = command_of(given)
        document = command.document
        return cls(command, document, ModelName.parse(document.model_id), ModelName.parse(document.version_name))

    @property
    def digest(self) -> Digest:
        return Digest.parse(self.document.sha256)

    @property
    def pull(self) -> ModelPull:
        address = self.document.download_url or None
        return ModelPull(
            ref=address or self.version.text,
            name=self.version.text,
            sha256=self.document.sha256,
            offline=address is None,
        )


class OneStep:
    """The notes of a step that is not the end of its job."""

    def __init__(self, notes: PublicationNotes[Updated]) -> None:
        self._notes = notes

    def waits_for(self, holder: str, /) -> AbstractAsyncContextManager[None]:
        return self._notes.waits_for(holder)

    async def about_to_publish(self, _: Pulled, /) -> None:
        pass

    async def published(self, _: Pulled, /) -> None:
        pass


class LastStep:
    """Of the step that ends the job: its outcome is kept for the command before the job is done."""

    def __init__(
        self, notes: PublicationNotes[Updated], outcome: Updated, record: Callable[[Updated], Awaitable[None]]
    ) -> None:
        self._notes = notes
        self._outcome = outcome
        self._record = record

    def waits_for(self, holder: str, /) -> AbstractAsyncContextManager[None]:
        return self._notes.waits_for(holder)

    async def about_to_publish(self, _: Copied, /) -> None:
        await self._notes.about_to_publish(self._outcome)

    async def published(self, _: Copied, /) -> None:
        await self._record(self._outcome)
        await self._notes.published(self._outcome)
