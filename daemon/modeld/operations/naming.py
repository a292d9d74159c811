"""model.copy, model.move, model.remove: what models are called."""

from __future__ import annotations

import msgspec

from modeld.jobs.job import Job
from modeld.operations.calling import Call, Handlers
from modeld.operations.house import House
from modeld.operations.working import PublicationNotes, as_job, key_of
from modeld.store import ModelName
from modelwire import requests
from modelwire.values import Copied, Moved, Removed


def handlers(house: House) -> Handlers:
    renaming = house.store.renaming

    async def copy(call: Call, request: requests.ModelCopy) -> Copied:
        if request.dry_run:
            return msgspec.structs.replace(renaming.plan_copy(request.source, request.destination), dry_run=True)
        name = _checked(request.source, request.destination)
        key = key_of(request, call.caller.uid, request.source, request.destination)
        return await as_job(house, call, request, key, name, Copied)

    async def copy_work(job: Job) -> Copied:
        request = msgspec.convert(job.request, requests.ModelCopy, from_attributes=True)
        notes, stopped = PublicationNotes(house, job), job.meter.stopped
        return await renaming.copy(request.source, request.destination, order=job.order, notes=notes, stopped=stopped)

    async def move(call: Call, request: requests.ModelMove) -> Moved:
        name = _checked(request.source, request.destination)
        key = key_of(request, call.caller.uid, request.source, request.destination)
        return await as_job(house, call, request, key, name, Moved)

    async def move_work(job: Job) -> Moved:
        request = msgspec.convert(job.request, requests.ModelMove, from_attributes=True)
        return await renaming.move(
            request.source,
            request.destination,
            order=job.order,
            notes=PublicationNotes(house, job),
            stopped=job.meter.stopped,
            earlier=job.intent if isinstance(job.intent, Moved) else None,
        )

    async def remove(call: Call, request: requests.ModelRemove) -> Removed:
        name = _checked(request.name)
        key = key_of(request, call.caller.uid, request.name, request.force)
        return await as_job(house, call, request, key, name, Removed)

    async def remove_work(job: Job) -> Removed:
        request = msgspec.convert(job.request, requests.ModelRemove, from_attributes=True)
        notes, stopped = PublicationNotes(house, job), job.meter.stopped
        return await renaming.remove(request.name, force=request.force, order=job.order, notes=notes, stopped=stopped)

    runner = house.board.runner
    runner.register("model.copy", copy_work, lambda job: isinstance(job.intent, Copied) and renaming.copied(job.intent))
    runner.register("model.move", move_work, lambda job: isinstance(job.intent, Moved) and renaming.moved(job.intent))
    runner.register(
        "model.remove", remove_work, lambda job: isinstance(job.intent, Removed) and renaming.removed(job.intent)
    )
    return Handlers(quick={}, long={requests.ModelCopy: copy, requests.ModelMove: move, requests.ModelRemove: remove})


def _checked(*names: str) -> str:
    """A name that breaks a rule is refused before anything is queued, and is stored nowhere. The last one of them."""
    return [ModelName.parse(name).text for name in names][-1]
