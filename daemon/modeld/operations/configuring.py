"""daemon.configure and job.configure: what can be changed while things run, and what it was before."""

from __future__ import annotations

from dataclasses import replace

from modeld.operations.calling import Call, Caller, Handlers
from modeld.operations.house import House
from modeld.operations.jobs import own_job, refuse_ended
from modeld.operations.pull import FETCHES
from modelwire import requests
from modelwire.errors import InvalidRequest
from modelwire.values import Change, Configured

_SLOWEST = 1000
"""As in a pull's own `max_rate`: whoever writes less has meant another unit."""


def handlers(house: House) -> Handlers:
    def tell(event: str, changes: dict[str, Change], **about: object) -> None:
        """One line for each setting. A limit that there is not is told in a word: the log leaves out what is null."""
        for key, change in changes.items():
            old, new = ("none" if value is None else value for value in (change.old, change.new))
            house.activity.record(event, **about, key=key, old=old, new=new)

    def configure(caller: Caller, request: requests.DaemonConfigure) -> Configured:
        changes: dict[str, Change] = {}
        if request.max_rate is not None:
            budget = house.pulls.transfer.budget
            old, new = budget.rate, _rate(request.max_rate)
            budget.set_rate(new)
            changes["max_rate"] = Change(old=old, new=new, at_start=house.pulls.max_rate_at_start)
        changes |= _relimit(house, request)
        _refuse_nothing(changes, request)
        tell("daemon.configured", changes, peer=caller.uid)
        return Configured(settings=changes, lasts_until="stop")

    async def configure_job(call: Call, request: requests.JobConfigure) -> Configured:
        job = await own_job(house, call.caller, request.job)
        refuse_ended(job, "changed")
        changes: dict[str, Change] = {}
        rate = None if request.max_rate is None else _rate(request.max_rate)
        if request.max_rate is not None and not isinstance(job.request, requests.ModelPull):
            raise InvalidRequest(
                f"$.max_rate: job {job.id} is a {job.kind}, and only a model.pull has a rate",
                hint="its priority can be changed; `modelctl jobs` tells which jobs are pulls",
            )
        if request.priority is not None:
            old = job.priority
            await house.board.prioritize(job, request.priority)
            changes["priority"] = Change(old=old, new=job.priority)
        if request.max_rate is not None:
            before = job.max_rate
            await house.board.limit(job, rate)
            changes["max_rate"] = Change(old=before, new=rate)
        _refuse_nothing(changes, request)
        tell("job.configured", changes, job=job.id, model=job.model, peer=call.caller.uid)
        return Configured(settings=changes, lasts_until="end", job=job.id)

    return Handlers(
        quick={requests.DaemonConfigure: configure},
        long={requests.JobConfigure: configure_job},
    )


def _relimit(house: House, request: requests.DaemonConfigure) -> dict[str, Change]:
    """How many may run and wait."""
    now, at_start = house.gate.limits, house.settings.limits
    before = {
        "running_bytes": now.running_default,
        "running_fetches": now.running_of(FETCHES),
        "waiting_per_peer": now.waiting_per_peer,
        "waiting_total": now.waiting_total,
    }
    wanted = {key: value for key in before if (value := getattr(request, key)) is not None}
    if wanted:
        then = before | wanted
        limits = replace(
            now,
            running={**now.running, FETCHES: then["running_fetches"]},
            running_default=then["running_bytes"],
            waiting_per_peer=then["waiting_per_peer"],
            waiting_total=then["waiting_total"],
        )
        house.store.use_threads(then["running_bytes"])
        house.board.runner.settle(house.gate.relimit(limits))
    return {key: Change(old=before[key], new=new, at_start=getattr(at_start, key)) for key, new in wanted.items()}


def _rate(asked: int) -> int | None:
    if 0 < asked < _SLOWEST:
        raise InvalidRequest(
            f"$.max_rate: {asked} bytes a second are less than any line carries; a rate is at least {_SLOWEST}",
            hint="it is in bytes a second: 20000000 for 20 MB/s; 0 for no limit",
        )
    return asked or None


def _refuse_nothing(changes: dict[str, Change], request: requests.DaemonConfigure | requests.JobConfigure) -> None:
    if not changes:
        known = [field for field in request.__struct_fields__ if field not in ("id", "job")]
        raise InvalidRequest(
            "$: nothing was given that could be changed", hint=f"what can be: {', '.join(sorted(known))}"
        )
