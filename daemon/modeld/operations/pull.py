"""The operation itself: admitted, and sent the way that its reference goes."""

from __future__ import annotations

import contextlib

import msgspec

from modeld.jobs.job import Job
from modeld.operations.calling import Call, Handlers
from modeld.operations.house import House
from modeld.operations.models import reader_for
from modeld.operations.working import PublicationNotes, as_job, refusals_kept
from modeld.pulls.local import add_local, use_stored
from modeld.pulls.pull import Pull
from modeld.pulls.request import PullRequests
from modeld.sources.local import LocalReference
from modeld.sources.stored import StoredReference
from modeld.store import Digest
from modelwire import requests
from modelwire.errors import WireError
from modelwire.values import Added, Pulled

FETCHES = "model.pull"
ADDS = "model.add"
"""The queues of pulls: of those that go out, and of those that find what they want on this machine."""


def handlers(house: House) -> Handlers:
    asked = PullRequests(house.pulls)

    async def pull(call: Call, request: requests.ModelPull) -> Pulled:
        stored, key = asked.accept(request, call.caller.uid, [job.key for job in house.board.jobs])
        return await as_job(house, call, stored, key, stored.name, Pulled)

    async def pull_work(job: Job) -> Pulled:
        request = msgspec.convert(job.request, requests.ModelPull, from_attributes=True)
        reference = asked.reference(job, request)
        async with refusals_kept(house, job, reference.text):
            notes = PublicationNotes(house, job)
            if isinstance(reference, LocalReference):
                return await add_local(house.store, job, request, reference, await reader_for(house, job.peer), notes)
            if isinstance(reference, StoredReference):
                return await use_stored(house.store, job, request, reference, failed)
            return await Pull(house.pulls, house.activity, job, request, reference, notes).run()

    def failed(name: str, digest: Digest, reason: str) -> None:
        house.activity.record("model.failed", model=name, digest=digest.text, message=reason)

    def took_place(job: Job) -> bool:
        return isinstance(job.intent, Added) and house.store.published(job.intent)

    def queue(job: Job) -> str:
        """What is on this machine is added, and must not wait for a slow line."""
        with contextlib.suppress(WireError):  # told by the work, which reads it again
            if isinstance(job.request, requests.ModelPull) and not house.pulls.read(job.request.ref).network:
                return ADDS
        return FETCHES

    house.board.runner.register("model.pull", pull_work, took_place, queue)
    return Handlers(quick={}, long={requests.ModelPull: pull})
