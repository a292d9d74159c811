"""store.scrub: reads all blobs again, beside all other work."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from modeld.jobs.job import AnyJob, Job, timestamp
from modeld.operations.job_operation import JobOperation, Submission, requester_of
from modeld.operations.operation import Caller
from modeld.operations.services import Services
from modeld.store import Manner
from modelwire.errors import InvalidRequest
from modelwire.requests import StoreScrub
from modelwire.values import Scrubbed, ScrubView
from modelwire.vocabulary import PRIORITY_LOWEST

PASSES: Final = 10
"""In the time in which each blob is looked at once: blobs that become due one after the other share a scrub."""


class Scrub(JobOperation[StoreScrub, Scrubbed]):
    request, value = StoreScrub, Scrubbed
    always_resumable = True

    def check(self, caller: Caller, request: StoreScrub, /) -> Submission[StoreScrub]:
        self._refuse_never_due(request)
        return Submission(request, self.key_of(request, caller.uid), None)

    def _refuse_never_due(self, request: StoreScrub) -> None:
        """Also for a job of an earlier run of the daemon, with another configuration."""
        if request.due and self._services.settings.scrub.every is None:
            raise InvalidRequest(
                "$.due: by the configuration no blob is ever due",
                hint="Set `every` in [scrub], or scrub without `due`.",
            )

    def key_of(self, request: StoreScrub, uid: int) -> str:
        return self.key(uid, *(option for option in ("full", "due") if getattr(request, option)))

    def is_background(self, request: StoreScrub, /) -> bool:
        return request.due

    async def work(self, job: Job[StoreScrub, Scrubbed], /) -> Scrubbed:
        self._refuse_never_due(job.request)
        every = self._services.settings.scrub.every if job.request.due else None
        return await self._services.store.scrubber.scrub(
            since=job.created_at,
            before=job.created_at - float(every or 0),
            full=job.request.full,
            manner=Manner(
                order=job.order,
                requester=requester_of(job),
                on_failed=partial(self._services.model_failed, job=job.id),
            ),
            progress=job.progress,
        )


async def until_due(services: Services, every: float) -> float:
    """Seconds until the daemon begins a scrub by itself; 0 for now."""
    scrubber, now = services.store.scrubber, time.time()
    plan = await scrubber.plan(since=now, before=now - every)
    next_at = now if plan.due else (now if plan.oldest is None else plan.oldest) + every
    for ended_at in (scrubber.scrubs.rested_at, None if scrubber.ended is None else scrubber.ended.at):
        if ended_at is not None and ended_at <= now:  # else by a clock that was ahead
            next_at = max(next_at, ended_at + every / PASSES)
    scrubber.next_at = next_at
    return max(0.0, next_at - now)


_OWN: Final = StoreScrub(due=True, priority=PRIORITY_LOWEST, on_disconnect="continue")


async def scrub_what_is_due(services: Services) -> None:
    """As the daemon's own user. Returns when the scrub has ended; one that a user has paused is the one to wait for."""
    job = own_scrub(services)
    if job is None:
        scrub, uid = Scrub(services), services.own_uid
        key = scrub.key_of(_OWN, uid)
        with await services.board.submit(scrub, _OWN, key=key, model=None, peer=uid) as attachment:
            job = attachment.job
    await until_ended(services, job)


async def until_ended(services: Services, job: AnyJob) -> None:
    """One that has failed or was cancelled delays the next as one that is done."""
    await job.ended.wait()
    if job.terminal:
        await services.store.scrubber.scrubs.rest(time.time())


def own_scrub(services: Services) -> AnyJob | None:
    """The daemon's own scrub when it runs, waits or is paused."""
    uid = services.own_uid
    return services.board.jobs.same_work(Scrub(services).key_of(_OWN, uid), uid, None)


def scrub_view(services: Services) -> ScrubView:
    """Of scrubs that are paused, one is shown when none runs."""
    scrubber = services.store.scrubber
    every, ended = services.settings.scrub.every, scrubber.ended
    scrubs = [job for job in services.board.jobs if isinstance(job.kind, Scrub) and job.state in ("running", "paused")]
    shown = next((job for job in scrubs if job.state == "running"), next(iter(scrubs), None))
    running = shown is not None and shown.state == "running"
    now = None if shown is None else shown.progress.snapshot()
    own = own_scrub(services)
    return ScrubView(
        mode="off" if every is None else "auto",
        job=None if shown is None else shown.id,
        paused=shown is not None and not running,
        waits=running and scrubber.background.waits,
        bytes_done=0 if now is None else now.bytes_done,
        bytes_total=None if now is None else now.bytes_total,
        next_at=None if scrubber.next_at is None or own is not None else timestamp(scrubber.next_at),
        last_at=None if ended is None else timestamp(ended.at),
        last_checked=0 if ended is None else ended.checked,
        last_failed=0 if ended is None else ended.failed,
    )
