"""The operation itself: admitted, and sent the way that its reference goes."""

from __future__ import annotations

import contextlib

import msgspec

from modeld.jobs.job import Job
from modeld.operations.calling import Call, Handlers
from modeld.operations.house import House
from modeld.operations.models import reader_for
from modeld.operations.working import as_job, refusals_kept
from modeld.pulls.outcome import PullNotes, pulled_from
from modeld.pulls.pull import Pull
from modeld.pulls.request import Asking
from modeld.sources.local import LocalReference
from modeld.sources.stored import StoredReference
from modeld.store import Digest, Requester, WouldBlock
from modelwire import requests
from modelwire.errors import DigestMismatch, NotFound, WireError
from modelwire.values import Added, Pulled

FETCHES = "model.pull"
ADDS = "model.add"
"""The queues of pulls: of those that go out, and of those that find what they want on this machine."""


def handlers(house: House) -> Handlers:
    asking = Asking(house.workshop)

    async def pull(call: Call, request: requests.ModelPull) -> Pulled:
        stored, key = asking.read(request, call.caller.uid)
        asking.remember(key, request, [job.key for job in house.board.jobs])
        return await as_job(house, call, stored, key, stored.name, Pulled)

    async def pull_work(job: Job) -> Pulled:
        request = msgspec.convert(job.request, requests.ModelPull, from_attributes=True)
        reference = asking.reference(job, request)
        async with refusals_kept(house, job, reference.text):
            if isinstance(reference, LocalReference):
                return await _add(house, job, request, reference)
            if isinstance(reference, StoredReference):
                return await _stored(house, job, request, reference)
            return await Pull(house, job, request, reference).run()

    def took_place(job: Job) -> bool:
        return isinstance(job.intent, Added) and house.store.models.stands_for(job.intent)

    def queue(job: Job) -> str:
        """What is on this machine is added, and must not wait for a slow line."""
        with contextlib.suppress(WireError):  # told by the work, which reads it again
            if isinstance(job.request, requests.ModelPull) and not house.workshop.read(job.request.ref).network:
                return ADDS
        return FETCHES

    house.board.runner.register("model.pull", pull_work, took_place, queue)
    return Handlers(quick={}, long={requests.ModelPull: pull})


async def _add(house: House, job: Job, request: requests.ModelPull, reference: LocalReference) -> Pulled:
    """What is on this machine is added, with the rights of who asks."""
    source = reference.text
    added = await house.store.add(
        reference.path,
        name=request.name,
        sha256=request.sha256,
        replace=request.replace,
        license=request.license,
        order=job.order,
        observer=job.meter,
        reader=reader_for(house, job.peer),
        notes=PullNotes(house, job, lambda added: pulled_from(added, source)),
        requester=Requester(peer=job.peer, job=job.id),
    )
    return pulled_from(added, source)


async def _stored(house: House, job: Job, request: requests.ModelPull, reference: StoredReference) -> Pulled:
    """A name stands for what is here, and asks nobody."""
    job.meter.phase("checking_local")
    name = reference.name.text

    def on_failed(name: str, digest: Digest, reason: str) -> None:
        house.activity.record("model.failed", model=name, digest=digest.text, message=reason)

    try:
        resolved = house.store.resolve(name)
    except NotFound as fault:
        if fault.details.get("close"):
            raise
        raise NotFound(
            fault.message,
            hint=f"a name alone means what is here; to fetch it, say where from: ollama:{name}, hf:org/repo, ./{name}",
            details=fault.details,
        ) from None
    except WouldBlock:
        resolved = await house.store.resolver.resolve(
            name, requester=Requester(peer=job.peer, job=job.id), on_failed=on_failed
        )
    view = house.store.models.view(resolved.name)
    expected, actual = request.sha256 and Digest.parse(request.sha256), Digest.parse(view.blob)
    if expected and not actual.matches(expected):
        raise DigestMismatch(
            f"'{view.name}' has the digest {actual.text}, {expected.text} was expected",
            hint="check the digest, or pull by a reference that says where the model comes from",
            details={"expected_sha256": expected.hex, "actual_sha256": actual.hex},
        )
    added = Added(
        name=view.name,
        blob=view.blob,
        size_bytes=view.size_bytes,
        format=view.format,
        path=resolved.path,
        reused=True,
        files=view.files,
    )
    job.meter.total(view.size_bytes)
    job.meter.advance(done=view.size_bytes, reused=view.size_bytes)
    return pulled_from(added, name, current=True)
