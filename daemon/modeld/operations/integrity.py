"""model.verify and store.quarantine: whether the bytes are what they were, and what became of those that are not."""

from __future__ import annotations

import msgspec

from modeld.jobs.job import Job
from modeld.operations.calling import Call, Handlers
from modeld.operations.house import House
from modeld.operations.working import as_job, key_of
from modeld.store import Digest, ModelName, Requester
from modelwire import requests
from modelwire.errors import InvalidRequest
from modelwire.values import QuarantineList, Verification


def handlers(house: House) -> Handlers:
    store = house.store

    async def verify(call: Call, request: requests.ModelVerify) -> Verification:
        names = sorted({ModelName.parse(name).text for name in request.names})
        if bool(names) == request.all:
            raise InvalidRequest(
                "$.names: models are verified by name, or with `all` every one of them",
                hint="give names, or `all`, and not both",
            )
        key = key_of(request, call.caller.uid, *names)
        return await as_job(house, call, request, key, names[0] if len(names) == 1 else None, Verification)

    async def verify_work(job: Job) -> Verification:
        request = msgspec.convert(job.request, requests.ModelVerify, from_attributes=True)

        def on_failed(name: str, digest: Digest, reason: str) -> None:
            house.activity.record("model.failed", job=job.id, model=name, digest=digest.text, message=reason)

        return await store.verifier.verify(
            None if request.all else request.names,
            order=job.order,
            observer=job.meter,
            requester=Requester(peer=job.peer, job=job.id),
            on_failed=on_failed,
        )

    async def quarantine(call: Call, _: requests.StoreQuarantine) -> QuarantineList:
        await call.until_writable()
        return await store.quarantined()

    house.board.runner.register("model.verify", verify_work)
    return Handlers(quick={}, long={requests.ModelVerify: verify, requests.StoreQuarantine: quarantine})
