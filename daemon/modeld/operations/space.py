"""store.usage and store.sweep: what the models take, and what nothing holds any more."""

from __future__ import annotations

import anyio
import anyio.to_thread
import msgspec

from modeld.jobs.job import Job
from modeld.operations.calling import Call, Handlers
from modeld.operations.house import House
from modeld.operations.working import as_job, key_of
from modelwire import requests
from modelwire.values import Swept, Usage


def handlers(house: House) -> Handlers:
    store = house.store

    async def usage(call: Call, _: requests.StoreUsage) -> Usage:
        await call.until_writable()
        return await store.usage()

    async def sweep(call: Call, request: requests.StoreSweep) -> Swept:
        key = key_of(request, call.caller.uid, request.dry_run, request.grace_s)
        return await as_job(house, call, request, key, None, Swept)

    async def sweep_work(job: Job) -> Swept:
        request = msgspec.convert(job.request, requests.StoreSweep, from_attributes=True)
        swept = await store.sweeper.sweep(
            dry_run=request.dry_run, grace=request.grace_s, order=job.order, observer=job.meter
        )
        await anyio.to_thread.run_sync(store.reserve.refill)
        return swept

    house.board.runner.register("store.sweep", sweep_work)
    return Handlers(quick={}, long={requests.StoreUsage: usage, requests.StoreSweep: sweep})
