"""What an update command asks for, the model that it may go back to, the notes of the steps of its job, and the words
for how it ends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec

from modeld.config.node import NodeSettings
from modeld.jobs.job import timestamp
from modeld.jobs.publication import PublicationNotes
from modeld.jobs.record import failure_error
from modeld.operations.model_ids import name_of
from modeld.operations.services import Services
from modeld.store import Digest, ModelName
from modeld.store.publish.name_changes import PassedOn
from modelwire.errors import AlreadyExists, Corrupt, InvalidName, InvalidRequest, NotFound, SourceNotFound, WireError
from modelwire.knowledge import requirements
from modelwire.knowledge.command import UpdateCommand, command_of
from modelwire.knowledge.document import ModelDocument
from modelwire.requests import ModelPull
from modelwire.values import Copied, Machine, Pulled, Updated, UpdateOutcome


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
    def names(self) -> tuple[ModelName, ...]:
        """All that it needs, but a rollback model that it knows by an id."""
        rollback = tuple[ModelName, ...]()
        if self.command.rollback_model_id is not None:
            with suppress(InvalidName):
                rollback = (ModelName.parse(self.command.rollback_model_id),)
        return (self.name, self.version, *rollback)

    @property
    def pull(self) -> ModelPull:
        address = self.document.download_url or None
        return ModelPull(
            ref=address or self.version.text,
            name=self.version.text,
            sha256=self.document.sha256,
            offline=address is None,
        )

    def ended(self, node: NodeSettings, outcome: UpdateOutcome, **known: Any) -> Updated:
        return Updated(
            command_id=self.command.command_id,
            outcome=outcome,
            node=node.name,
            name=self.name.text,
            version=self.version.text,
            at=timestamp(time.time()),
            rollback=self.command.rollback_model_id,
            **known,
        )

    def elsewhere(self, node: NodeSettings, machine: Machine) -> Updated | None:
        """The outcome of a command that is not for this machine."""
        if not node.is_among(self.command.target_nodes):
            return self.ended(node, "not_targeted")
        lines = requirements.lines(self.document.requirements, machine)
        failing = tuple(line for line in lines if line.decides and line.verdict != "fits")
        return self.ended(node, "does_not_fit", lines=failing) if failing else None


class OneStep(PassedOn):
    """The notes of a step that is not the end of its job."""

    async def about_to_publish(self, _: Pulled, /) -> None:
        pass

    async def published(self, _: Pulled, /) -> None:
        pass


class LastStep(PassedOn):
    """Of the step that ends the job: its outcome is kept for the command before the job is done."""

    def __init__(
        self,
        notes: PublicationNotes[Updated],
        outcome: Updated,
        check: Callable[[], Awaitable[None]],
        record: Callable[[Updated], Awaitable[None]],
    ) -> None:
        """`check` raises when the name must stay; it is called in the publisher's turn, as `record` is."""
        super().__init__(notes)
        self._outcome = outcome
        self._check = check
        self._record = record
        self.moved = False
        """Whether the name stands for the version: from then on nothing is undone."""

    async def about_to_publish(self, _: Copied, /) -> None:
        await self._check()
        await self._notes.about_to_publish(self._outcome)

    async def published(self, _: Copied, /) -> None:
        self.moved = True
        await self._record(self._outcome)
        await self._notes.published(self._outcome)


async def rollback_model(services: Services, update: Update, uid: int) -> ModelName | None:
    """The rollback model of the command, which is here. Raises NotFound, or Corrupt."""
    text, store = update.command.rollback_model_id, services.store
    if text is None:
        return None
    try:
        text = await name_of(services, uid, text, own=True)
        view = await store.index.in_thread(partial(store.models.view, text))
    except (InvalidName, NotFound) as fault:
        raise NotFound(
            f"the rollback model '{text}' is not here",
            hint="Name a model that `modelctl list` shows, or leave the rollback out.",
            details=fault.details,
        ) from None
    if view.state in ("failed", "unavailable"):
        raise Corrupt(
            f"the rollback model '{view.name}' cannot be gone back to: {view.reason or view.state}",
            hint=f"Repair it with `modelctl repair {view.name}`, or name another one.",
            details={"name": view.name},
        )
    name = ModelName.parse(view.name)
    if name != update.name and view.blob == update.digest.text:
        raise InvalidRequest(
            f"$.command.rollback_model_id: '{view.name}' has the bytes of the new version itself",
            hint="Name an earlier version, or leave the rollback out.",
        )
    return name


def answered(known: Updated) -> Updated:
    """A stored outcome, as it was given first."""
    if known.outcome == "failed" and known.error is not None:
        fault = failure_error(known.error)
        fault.hint = f"{fault.hint or ''} That was the outcome at {known.at}.".strip()
        raise fault
    return msgspec.structs.replace(known, repeated=True)


def final(update: Update, fault: WireError) -> None:
    """Marks it as the command's outcome: in its details, as not retryable, and in its hint. The same command never does
    more."""
    fault.details |= {"command_id": update.command.command_id, "outcome": "failed"}
    fault.retryable = False
    again = f"'{update.name.text}' was not moved. To try again, send a command with another id."
    fault.hint = f"{fault.hint or ''} {again}".strip()


def of_version(update: Update, fault: WireError) -> WireError:
    """The failure to bring the version, in words that are about it."""
    if isinstance(fault, AlreadyExists):
        fault.hint = "A version is never replaced: give the new bytes another version."
    if isinstance(fault, SourceNotFound) and not update.document.download_url:
        fault.hint = (
            f"Add its bytes under any name, `modelctl add PATH --name {update.version.text}`, or write an address as"
            " `download_url`."
        )
    return fault


def other_command(update: Update) -> AlreadyExists:
    return AlreadyExists(
        f"another command has the id {update.command.command_id}",
        hint="Give each command an id of its own: `modelctl template ID --update` makes one.",
        details={"command_id": update.command.command_id},
    )
