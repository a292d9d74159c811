"""Room for a job: what would have to go for it, and, when the configuration says so, its removal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from modeld.jobs.job import AnyJob
from modeld.operations.services import Services
from modeld.pulls.own_thread import until_done
from modeld.store.disk.user_space import ShareExceeded
from modeld.store.maintain.evict import Fetchable
from modeld.store.manifests.entries import Entry
from modelwire.errors import NoSpace, QuotaExceeded, WireError
from modelwire.units import format_size, rounded_size
from modelwire.values import EvictionPlan

T = TypeVar("T")

TRIES: Final = 3
"""Without an eviction that made room: another job may take what was free a moment ago. An eviction makes none when the
filesystem frees bytes later, or shares them with other files: then the next ones would take all models for nothing."""

NAMED: Final = 20
"""Models of the plan that an error names."""


async def plan(services: Services, needed: int) -> EvictionPlan:
    async with services.store.evictor.alone:
        return await services.store.evictor.plan(needed, partial(_ask, services))


async def _ask(services: Services, entry: Entry) -> Fetchable:
    """Asks the source with the rights of the user who named the model: that user chose the source."""
    return await services.refetching.ask(entry, partial(services.source_user, entry.owner))


async def with_room(services: Services, job: AnyJob, work: Callable[[], Awaitable[T]]) -> T:
    """Awaits work of a job, again as often as room could be made for it. An error says what could go."""
    tries = 0
    while True:
        try:
            return await work()
        except (NoSpace, QuotaExceeded) as fault:
            needed = fault.details.get("room_bytes", fault.details.get("needed_bytes"))
            if isinstance(fault, ShareExceeded) or not isinstance(needed, int):
                raise
            evictor = services.store.evictor
            async with evictor.alone:
                found = await _planned(services, job, needed)
                if not (services.store.evict and found.enough):
                    _explain(fault, found)
                    raise
                evicted = await _evict(services, job, found)
                # Where none is gone, all of them were used meanwhile, and others may go.
                tries = 0 if evicted and await evictor.available() >= needed else tries + 1
            if tries >= TRIES:
                raise


async def _planned(services: Services, job: AnyJob, needed: int) -> EvictionPlan:
    """Sources may be silent: a job that is cancelled meanwhile ends at once."""
    planning = asyncio.ensure_future(services.store.evictor.plan(needed, partial(_ask, services)))
    try:
        await until_done(planning, job.progress.stopped)
    finally:
        planning.cancel()
    return planning.result()


async def _evict(services: Services, job: AnyJob, found: EvictionPlan) -> bool:
    """Returns whether any model is gone."""
    gone = await services.store.evictor.carry_out(found)
    for removed in gone:
        services.activity.record(
            "model.evicted",
            job=job.id,
            model=removed.name,
            freed_bytes=removed.frees_bytes,
            message=f"{rounded_size(found.needed_bytes)} were needed",
        )
    return bool(gone)


def _explain(fault: WireError, found: EvictionPlan) -> None:
    """Adds to the error what could go."""
    if found.evict and found.enough:
        names = ", ".join(each.name for each in found.evict[:NAMED])
        more = len(found.evict) - NAMED
        fault.hint = (
            f"Remove models that can be fetched again: {names}{f' and {more} more' if more > 0 else ''}."
            f" `modelctl usage --plan {format_size(found.needed_bytes)}` shows them with their sources; with"
            ' evict = "auto" in [store] the daemon removes them by itself.'
        )
    if found.notes:
        fault.hint = f"{fault.hint or ''} {' '.join(f'{note}.' for note in found.notes)}".strip()
    fault.details["plan"] = [each.name for each in found.evict[:NAMED]]
    fault.details["plan_frees_bytes"] = found.frees_bytes
    fault.details["plan_enough"] = found.enough
