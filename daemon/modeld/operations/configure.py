"""daemon.configure and job.configure: change settings at run time, and report what they were before."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from modeld.operations.fetching import FETCHES
from modeld.operations.job_control import own_open_job
from modeld.operations.operation import Call, Caller, QuickOperation, SlowOperation
from modeld.operations.services import Services
from modelwire.errors import InvalidRequest
from modelwire.requests import DaemonConfigure, Fetch, JobConfigure
from modelwire.values import Change, Configured

_SLOWEST = 1000
"""As in a pull's own `max_rate`: a smaller number was meant in another unit."""


class ConfigureDaemon(QuickOperation[DaemonConfigure, Configured]):
    request, value = DaemonConfigure, Configured

    def answer(self, caller: Caller, request: DaemonConfigure, /) -> Configured:
        pulls = self._services.pulls
        changes: dict[str, Change] = {}
        if request.max_rate is not None:
            budget = pulls.transfer.budget
            old, new = budget.rate, _rate(request.max_rate)
            budget.set_rate(new)
            changes["max_rate"] = Change(old=old, new=new, at_start=pulls.max_rate_at_start)
        changes |= _set_limits(self._services, request)
        _require_change(changes, request)
        _record(self._services, "daemon.configured", changes, peer=caller.uid)
        return Configured(settings=changes, lasts_until="stop")


class ConfigureJob(SlowOperation[JobConfigure, Configured]):
    request, value = JobConfigure, Configured

    async def run(self, call: Call, request: JobConfigure, /) -> Configured:
        board = self._services.board
        job = await own_open_job(self._services, call.caller, request.job, "changed")
        changes: dict[str, Change] = {}
        rate = None if request.max_rate is None else _rate(request.max_rate)
        if request.max_rate is not None and not isinstance(job.request, Fetch):
            raise InvalidRequest(
                f"$.max_rate: job {job.id} is a {job.kind.name}, and only what downloads has a rate",
                hint="Change its priority, or find a pull with `modelctl jobs`.",
            )
        if request.priority is not None:
            old = job.priority
            await board.prioritize(job, request.priority)
            changes["priority"] = Change(old=old, new=job.priority)
        if request.on_disconnect is not None:
            changes["on_disconnect"] = Change(old=job.on_disconnect, new=request.on_disconnect)
            await board.set_on_disconnect(job, request.on_disconnect)
        if request.max_rate is not None:
            changes["max_rate"] = Change(old=job.request.max_rate, new=rate)
            await board.change_request(job, msgspec.structs.replace(job.request, max_rate=rate))
        _require_change(changes, request)
        _record(self._services, "job.configured", changes, job=job.id, model=job.model, peer=call.caller.uid)
        return Configured(settings=changes, lasts_until="end", job=job.id)


def _set_limits(services: Services, request: DaemonConfigure) -> dict[str, Change]:
    """Sets how many jobs may run and wait."""
    now, at_start = services.gate.limits, services.settings.limits
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
        services.store.use_threads(then["running_bytes"])
        services.board.runner.settle(services.gate.set_limits(limits))
    return {key: Change(old=before[key], new=new, at_start=getattr(at_start, key)) for key, new in wanted.items()}


def _record(services: Services, event: str, changes: dict[str, Change], **about: object) -> None:
    """Records one event for each setting. No limit is written as `none`: the log leaves out what is null."""
    for key, change in changes.items():
        old, new = ("none" if value is None else value for value in (change.old, change.new))
        services.activity.record(event, **about, key=key, old=old, new=new)


def _rate(asked: int) -> int | None:
    if 0 < asked < _SLOWEST:
        raise InvalidRequest(
            f"$.max_rate: {asked} bytes a second are less than any line carries; a rate is at least {_SLOWEST}",
            hint="Give it in bytes a second: 20000000 for 20 MB/s, 0 for no limit.",
        )
    return asked or None


def _require_change(changes: dict[str, Change], request: DaemonConfigure | JobConfigure) -> None:
    if not changes:
        known = [field for field in request.__struct_fields__ if field not in ("id", "job")]
        raise InvalidRequest(
            "$: nothing was given that could be changed", hint=f"Give one of {', '.join(sorted(known))}."
        )
