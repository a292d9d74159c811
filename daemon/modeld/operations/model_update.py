"""model.update: brings a version of a model to this machine, and moves the name that its users use to it.

The new version is fetched, verified and published under a name of its own, and an engine loads it, before the name
moves. So whatever fails, and wherever a power cut falls, the name stands for the old version or for the new one. After
a failure the job gives the name to the rollback model, if the command has one and the name stands for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import msgspec
import structlog

from modeld.jobs.board import Attachment
from modeld.jobs.job import Job, first_of
from modeld.jobs.record import failure_of
from modeld.observe.incident import incident
from modeld.operations.fetching import Fetching
from modeld.operations.follow import follow
from modeld.operations.job_operation import JobOperation, Submission
from modeld.operations.loading import REQUESTED, RETURN_SECONDS
from modeld.operations.model_add import by_descriptors
from modeld.operations.operation import Call, Caller
from modeld.operations.registered import check_address
from modeld.operations.services import Services
from modeld.operations.update_holds import UpdateHolds
from modeld.operations.updating import (
    LastStep,
    OneStep,
    Update,
    answered,
    final,
    of_version,
    other_command,
    rollback_model,
)
from modeld.platform import clock
from modeld.progress import Stopped
from modeld.sources.local import LocalReference
from modeld.store import ModelName
from modeld.store.disk.durable import source_faults
from modeld.store.publish.name_locks import Stop, never
from modelwire.errors import (
    AlreadyExists,
    Cancelled,
    DigestMismatch,
    QueueFull,
    TimedOut,
    WireError,
)
from modelwire.requests import ModelPull, ModelUpdate
from modelwire.values import Pulled, Updated, UpdateOutcome

T = TypeVar("T")

_READ: Final = 512
"""Commands that are kept as they were read: some times as many as may wait and be paused."""

log = structlog.get_logger("modeld.operations.update")

UpdateJob = Job[ModelUpdate, Updated]


class UpdateModel(JobOperation[ModelUpdate, Updated]):
    request, value = ModelUpdate, Updated
    always_resumable = True

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._fetching = Fetching(self, services)
        self._holds = UpdateHolds(services.board)
        services.store.holds.register(names=self._holds.of)
        self._read: dict[int, tuple[ModelUpdate, Update]] = {}
        """The commands of the last requests, by the identity of each: reading one takes up to half a millisecond."""

        self._admission = anyio.Lock()

    # -- before the job

    async def run(self, call: Call, request: ModelUpdate, /) -> Updated:
        update = self.read(request)
        settled = await self._settled(call.caller.uid, update) or await self._admit(call, request, update)
        return settled if isinstance(settled, Updated) else (await follow(call, settled)).outcome()

    async def _admit(
        self, call: Call, request: ModelUpdate, update: Update
    ) -> Updated | Attachment[ModelUpdate, Updated]:
        elsewhere = update.elsewhere(self._services.settings.node, await self._services.machine.now())
        rollback = await self._refuse_early(call, update) if elsewhere is None else None
        async with self._admission:  # two of one id, at once, are one
            if (settled := await self._settled(call.caller.uid, update)) is not None:
                return settled
            if elsewhere is not None:
                await self._record(update, elsewhere)
                return elsewhere
            self._check_number(call.caller.uid)
            attachment = await self.submit(call, request)
            self._holds.hold(attachment.job.id, update, rollback)
            return attachment

    async def _settled(self, uid: int, update: Update) -> Updated | Attachment[ModelUpdate, Updated] | None:
        """The outcome of the same command, or its job. Raises its failure."""
        known = await self._answered(update)
        return answered(known) if known is not None else self._attached(uid, update)

    def read(self, request: ModelUpdate) -> Update:
        known = self._read.get(id(request))
        if known is not None and known[0] is request:
            return known[1]
        update = Update.of(request.command)
        self._read[id(request)] = (request, update)
        while len(self._read) > _READ:
            del self._read[next(iter(self._read))]
        return update

    def check(self, caller: Caller, request: ModelUpdate, /) -> Submission[ModelUpdate]:
        update = self.read(request)
        stored = msgspec.structs.replace(request, priority=update.command.priority, on_disconnect="continue")
        return Submission(
            stored, self.key(update.command.command_id, update.command.content, caller.uid), update.name.text
        )

    def queue(self, request: ModelUpdate, /) -> str:
        return self._fetching.queue(self.read(request).pull.ref)

    def pull_of(self, request: ModelUpdate, /) -> ModelPull:
        return self.read(request).pull

    async def _answered(self, update: Update) -> Updated | None:
        """The outcome of the same command. Raises AlreadyExists when another one has its id."""
        known = await self._services.store.updates.of(update.command.command_id)
        if known is None:
            return None
        if known.content != update.command.content:
            raise other_command(update)
        return known.outcome

    def _attached(self, uid: int, update: Update) -> Attachment[ModelUpdate, Updated] | None:
        """To the job of the same command, also of another user: it is carried out once."""
        for job in self._live():
            if self.read(job.request).command.command_id == update.command.command_id:
                if self.read(job.request).command.content != update.command.content:
                    raise other_command(update)
                return self._services.board.attach(job, uid)
        return None

    def _live(self) -> Iterator[UpdateJob]:
        for job in self._services.board.jobs:
            if isinstance(job.request, ModelUpdate) and not job.terminal:
                yield job

    def _check_number(self, uid: int) -> None:
        """One that waits for an engine has no slot, and would not count for the gate."""
        own, most = sum(job.peer == uid for job in self._live()), self._services.gate.limits.waiting_per_peer
        if own >= most:
            raise QueueFull(
                f"{own} update commands of uid {uid} are being carried out, the most that one user may have",
                hint="Wait until some have ended: `modelctl updates` lists them.",
                details={"updates": own, "limit": most},
            )

    async def _refuse_early(self, call: Call, update: Update) -> ModelName | None:
        """What no byte need be fetched for. A refusal is no outcome: the command can come again. Returns the rollback
        model."""
        services, index, uid = self._services, self._services.store.index, call.caller.uid
        check_address(services, update.document, "$.command.manifest")
        reference = self._fetching.read(update.pull)
        if isinstance(reference, LocalReference):
            with source_faults(reference.path):
                if not await call.handed.may_name_paths():
                    raise by_descriptors(reference.path, uid)
        requester = await services.requester(uid)
        await index.in_thread(partial(services.store.pointing.check, update.name, requester))
        return await rollback_model(services, update, uid)

    # -- the job

    async def work(self, job: UpdateJob, /) -> Updated:
        update = self.read(job.request)
        known = await self._answered(update)
        if known is not None:
            return answered(known)
        # It may have been accepted by an earlier run of the daemon, with another configuration, on another machine.
        machine = await self._services.machine.now()
        if (elsewhere := update.elsewhere(self._services.settings.node, machine)) is not None:
            elsewhere = msgspec.structs.replace(elsewhere, job=job.id)
            await self._record(update, elsewhere)
            return elsewhere
        rollback: ModelName | None = None
        try:
            rollback = await rollback_model(self._services, update, job.peer)
            self._holds.hold(job.id, update, rollback)
            return await self._carry_out(job, update)
        except Stopped:
            if job.progress.stop_reason != "cancel":
                raise
            fault: WireError = Cancelled(f"job {job.id} was cancelled: {job.cancel_reason}")
        except WireError as error:
            fault = error
        except Exception as error:  # noqa: BLE001 - the name goes back in any case; the details are logged
            fault = incident(error, job=job.id, kind=self.name)
        return await self._go_back(job, update, rollback, fault)

    async def _carry_out(self, job: UpdateJob, update: Update) -> Updated:
        notes = OneStep(self.notes(job))
        brought: Pulled | WireError
        try:
            async with self.outcome_recorded(job, update.pull.ref):
                brought = await self._fetching.fetch(job, update.pull, notes, document=update.document, fixed=True)
        except WireError as fault:
            brought = of_version(update, fault)
        # The bytes are here, or not: nothing of the rest needs a slot, and a stop may interrupt it anywhere.
        job.resumable = True
        self._services.board.runner.leave_slot(job)
        await self._until_first(job, update)
        if isinstance(brought, WireError):
            raise brought
        return await self._apply(job, update, brought)

    async def _until_first(self, job: UpdateJob, update: Update) -> None:
        """Commands for one name take effect in the order in which they were admitted: a later one that is quicker waits
        for those before it."""
        while (before := self._one_before(job, update)) is not None:
            if job.progress.stopped():
                raise Stopped
            await first_of(before.changed, job.changed)

    def _one_before(self, job: UpdateJob, update: Update) -> UpdateJob | None:
        """One that is paused is not waited for."""
        for other in self._services.board.jobs:
            earlier = isinstance(other.request, ModelUpdate) and other.order < job.order
            waits = not other.ended.is_set() and other.stage not in ("paused", "parked")
            if earlier and waits and other.model == update.name.text:
                return other
        return None

    async def _apply(self, job: UpdateJob, update: Update, pulled: Pulled) -> Updated:
        """The name moves when the new version is known to load. Where it stands for it already, it was."""
        await self._check_latest(job, update)  # else an engine loads what is not used
        loaded = False
        if update.command.auto_load and not await self._stands_for(update.name, update.digest.text):
            loaded = await self._load(job, update, pulled)
        outcome = self._outcome(update, "applied", blob=update.digest.text, loaded=loaded or None)
        return await self._point(job, update, update.version, outcome, job.progress.stopped)

    async def _load(self, job: UpdateJob, update: Update, pulled: Pulled) -> bool:
        services, seconds = self._services, float(self._services.settings.node.load_within)
        notes = self.notes(job)
        job.progress.phase("load")
        request = partial(
            services.activity.record,
            REQUESTED,
            job=job.id,
            model=update.version.text,
            peer=job.peer,
            name=update.name.text,
            command=update.command.command_id,
            digest=update.digest.text,
            path=pulled.path,
            seconds=seconds,
        )
        intent = job.intent
        if intent is not None and intent.loaded:
            return True  # it was loaded before a restart, and the name was about to move
        asked_before = intent is not None and intent.loaded is False
        wait = seconds if asked_before else RETURN_SECONDS - (clock.elapsed() - services.daemon.began)
        if not await services.loading.until_engines(wait, job) and not asked_before:
            return False
        # From here on, also after a restart, an engine has to answer.
        await notes.about_to_publish(self._outcome(update, "applied", blob=update.digest.text, loaded=False))
        if not await services.loading.until_engines(0 if asked_before else seconds, job):
            raise TimedOut(
                f"the engine that was to load the new version has not come back within {seconds:g} s",
                hint="Start the engine.",
            )
        await services.loading.ask(update.command.command_id, update.digest, seconds, job, request)
        return True

    async def _go_back(self, job: UpdateJob, update: Update, rollback: ModelName | None, fault: WireError) -> Updated:
        """To the rollback model, if the command has one; else the name stands for what it did. A command that is
        cancelled before its turn has no effect: the commands before it will move the name."""
        before = self._one_before(job, update)  # one that is cancelled does not wait for those before it
        self._services.board.runner.leave_slot(job)
        with anyio.CancelScope(shield=True):
            if rollback is not None and before is None:
                try:
                    view = await self._in_thread(partial(self._services.store.models.view, rollback.text))
                    outcome = self._outcome(update, "rolled_back", blob=view.blob, error=failure_of(fault))
                    return await self._point(job, update, rollback, outcome, never)
                except WireError as second:
                    said = f"The rollback failed too: {second.message}. {second.hint or ''}".strip()
                    fault.hint = f"{fault.hint or ''} {said}".strip()
                    fault.details["rollback"] = second.code
            final(update, fault)
            await self._record(update, self._outcome(update, "failed", error=failure_of(fault), job=job.id))
        raise fault

    async def _point(
        self, job: UpdateJob, update: Update, version: ModelName, outcome: Updated, stopped: Stop
    ) -> Updated:
        """Gives the name to that version, unless it stands for it already, and keeps the outcome."""
        job.progress.phase("publish")
        outcome = msgspec.structs.replace(outcome, job=job.id)
        record = partial(self._record, update)
        same = partial(self._services.store.models.same, update.name.text, version.text)
        if version != update.name and not await self._in_thread(same):
            step = LastStep(self.notes(job), outcome, partial(self._check_latest, job, update), record)
            try:
                await self._services.store.pointing.point(
                    update.name.text,
                    version.text,
                    outcome.blob or "",
                    requester=await self._services.requester_of(job),
                    order=job.order,
                    notes=step,
                    stopped=stopped,
                )
            except WireError as fault:
                if not step.moved:
                    if not await self._in_thread(same):
                        raise
                    await record(outcome)  # the disk has failed after the name had moved
                log.warning("the end of an update could not be recorded yet", job=job.id, error=str(fault))
        else:
            await record(outcome)
        return outcome

    async def _check_latest(self, job: UpdateJob, update: Update) -> None:
        """Raises AlreadyExists when the name was given away by a command that was accepted later, while this one was
        paused."""
        later = await self._services.store.updates.later(update.name.text, job.id)
        if later is not None:
            raise AlreadyExists(
                f"command {later.command_id}, accepted later, has taken effect for '{update.name.text}' meanwhile",
                details={"name": update.name.text, "later": later.command_id},
            )

    async def cancelled(self, job: UpdateJob, fault: WireError, /) -> None:
        """Before its turn: the name stands for what it did."""
        update = self.read(job.request)
        final(update, fault)
        await self._record(update, self._outcome(update, "failed", error=failure_of(fault), job=job.id))

    async def record_mismatch(self, job: UpdateJob, source: str, fault: DigestMismatch) -> None:
        """It is in the outcome of the command. The model that the name stands for has nothing to do with it."""

    # -- after a crash

    async def restored(self, job: UpdateJob, /) -> None:
        """Of a rollback model that the command knows by an id nothing else says that it is needed."""
        with suppress(WireError):  # the work reports it
            update = self.read(job.request)
            self._holds.hold(job.id, update, await rollback_model(self._services, update, job.peer))

    def changes(self, request: ModelUpdate, /) -> str:
        return self.read(request).name.text

    def made(self, outcome: Updated, /) -> bool:
        models, back = self._services.store.models, outcome.rollback
        if outcome.outcome == "rolled_back" and back is not None and models.same(outcome.name, back):
            return True  # maybe of several files
        return outcome.blob is not None and models.has_digest(outcome.name, outcome.blob)

    def took_place(self, request: ModelUpdate, intent: Updated, /) -> bool:
        if intent.loaded is False or not self.made(intent):  # an engine was asked, and had not answered
            return False
        self._services.store.updates.note(Update.of(request.command).command.content, intent)
        return True

    # -- what all of them use

    def _outcome(self, update: Update, outcome: UpdateOutcome, **known: Any) -> Updated:
        return update.ended(self._services.settings.node, outcome, **known)

    async def _record(self, update: Update, outcome: Updated) -> None:
        await self._services.store.updates.record(update.command.content, outcome)
        self._tell(outcome)

    def _tell(self, outcome: Updated) -> None:
        self._services.activity.record(
            f"update.{outcome.outcome}",
            job=outcome.job,
            model=outcome.name,
            command=outcome.command_id,
            digest=outcome.blob,
            message=None if outcome.error is None else outcome.error.message,
        )

    async def _stands_for(self, name: ModelName, blob: str) -> bool:
        return await self._in_thread(partial(self._services.store.models.has_digest, name.text, blob))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._services.store.index.in_thread(work)
