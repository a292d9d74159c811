"""The scrub: reads all blobs again over the weeks, so that rot is found while the bytes can still be had elsewhere.

The blob with the oldest look comes first, and each look is recorded: a scrub that is
interrupted goes on where it was, also in the middle of a long blob. Most looks compare the checksums of the blocks;
every so many times a blob is hashed. A hash cannot go on in the middle: a blob whose hash was interrupted is compared
this time, or it would never be passed.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import merge
from typing import Final, NamedTuple

import anyio

from modeld.progress import JobProgress, check
from modeld.store.blobs.background import FILE_BYTES, Background
from modeld.store.catalog.scrubs import Ended, Look, Scrubs
from modeld.store.digest import Digest
from modeld.store.disk.locks import StoreLock
from modeld.store.maintain.checking import Checker, Finding, Manner
from modeld.store.manifests.entries import Entry
from modeld.store.publish.holds import Holds
from modelwire.values import Damaged, Scrubbed

SHOWN: Final = 1000
"""Damaged models of one answer."""

_AT_ONCE: Final = 64
"""Blobs between two records: one transaction for each."""

_AT_ONCE_BYTES: Final = 1 << 30

_PLACE_SECONDS: Final = 10.0
"""How much is read again after a stop or a crash: between two records of the place in a long blob, or of looks at the
configured rate."""

_SORTED: Final = 2000
"""Blobs that are sorted in one step, which keeps the interpreter from the event loop: 2 ms, for 100,000 blobs 230."""

_LOOK_SECONDS: Final = 0.25
"""Between two looks whether to stop, while another scrub reads."""


class Due(NamedTuple):
    digest: Digest
    size: int
    quick: int
    """How often it was compared since it was last hashed."""
    last: float


def _age(due: Due) -> tuple[float, str]:
    return due.last, due.digest.hex


@dataclass(frozen=True, slots=True)
class Plan:
    """What a scrub has to read, the oldest look first."""

    due: Sequence[Due] = ()
    size: int = 0
    checked: int = 0
    """Blobs that it has looked at already, before it was interrupted."""
    checked_bytes: int = 0
    faults: Mapping[Digest, str] = field(default_factory=dict)
    """Of these blobs."""
    oldest: float | None = None
    """The last look at the blob that is due next; None when none is left."""


class Scrubber:
    """For the event loop; one thread reads."""

    def __init__(
        self,
        checker: Checker,
        scrubs: Scrubs,
        lock: StoreLock,
        holds: Holds,
        background: Background,
        *,
        full_every: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.checker = checker
        self._name_changes = checker.name_changes
        self.scrubs = scrubs
        self.lock = lock
        self.holds = holds
        self.background = background
        self.full_every = full_every
        self.clock = clock
        self.reading = anyio.Lock()
        """Of two scrubs one reads, and the other then finds what it has looked at."""
        self.next_at: float | None = None
        """When the daemon begins the next one by itself, as far as that is known."""

    @property
    def ended(self) -> Ended | None:
        """The end of the last scrub."""
        return self.scrubs.ended

    async def plan(self, *, since: float, before: float, full: bool = False) -> Plan:
        """The blobs that models name and whose last look is older than `before`; all of them for a scrub that began no
        later. One that began at `since` has looked at those with a later look by a scrub, a `full` one by a hash.
        Raises when the store is away."""
        await self._name_changes.in_thread(self.lock.check)
        now = self.clock()
        await self.scrubs.none_after(now, instead=min(now, since - 1))
        entries = [entry async for entry in self._name_changes.index.entries()]
        return await self._name_changes.in_thread(partial(self._plan, entries, since, before, full, now))

    def _plan(self, entries: Sequence[Entry], since: float, before: float, full: bool, now: float) -> Plan:
        sizes: dict[str, int] = {}
        for entry in entries:
            sizes.update(entry.sizes())
        digests = [Digest.parse(text) for text in sizes]
        looks, hashed = self.scrubs.looks(digests), self.checker.records.hashed_at(digests)
        due: list[Due] = []
        checked, checked_bytes, faults, oldest = 0, 0, dict[Digest, str](), None
        for digest in digests:
            look, hashed_at, size = looks.get(digest), hashed.get(digest, 0.0), sizes[digest.text]
            if hashed_at > now:
                hashed_at = 0.0  # by a clock that was ahead
            if look is not None and look.counts(since, now, full=full):
                checked, checked_bytes = checked + 1, checked_bytes + size
                if look.fault is not None:
                    faults[digest] = look.fault
                continue
            quick = 0 if look is None or hashed_at > look.at else look.quick
            last = max(0.0 if look is None else min(look.at, now), hashed_at)
            if last < before or before >= since:
                due.append(Due(digest, size, quick, last))
            elif oldest is None or last < oldest:
                oldest = last
        pieces = [sorted(due[first : first + _SORTED], key=_age) for first in range(0, len(due), _SORTED)]
        due = list(merge(*pieces, key=_age))
        return Plan(due, sum(each.size for each in due), checked, checked_bytes, faults, oldest)

    async def scrub(
        self, *, since: float, before: float, full: bool, manner: Manner, progress: JobProgress
    ) -> Scrubbed:
        """Looks at the blobs whose last look is older than `before`. `since` is when the scrub began, before all
        interruptions. Raises Stopped; the next call goes on there."""
        progress.phase("verify")
        plan = await self.plan(since=since, before=before, full=full)
        progress.total(plan.checked_bytes + plan.size)
        progress.advance(done=plan.checked_bytes, kept=plan.checked_bytes)
        run = _Run(self, since, full, replace(manner, background=self.background), progress)
        await run.look_at(plan.due)
        damaged = await self._damaged({**plan.faults, **run.faults})
        scrubbed = Scrubbed(
            checked=plan.checked + len(plan.due),
            hashed=run.hashed,
            failed=len({view.blob for view in damaged}),
            size_bytes=plan.checked_bytes + plan.size,
            damaged=tuple(damaged[:SHOWN]),
        )
        await self.scrubs.end(Ended(self.clock(), scrubbed.checked, scrubbed.failed), before)
        return scrubbed

    async def _damaged(self, faults: Mapping[Digest, str]) -> list[Damaged]:
        """The models that name these blobs; what no model names any more is no damage, nor what was repaired since."""
        faults = await self._name_changes.in_thread(partial(self._still_bad, faults))
        if not faults:
            return []
        return [
            Damaged(name=entry.name.text, blob=blob.digest.text, reason=faults[blob.digest])
            async for entry in self._name_changes.index.entries()
            for blob in entry.blobs
            if blob.digest in faults
        ]

    def _still_bad(self, faults: Mapping[Digest, str]) -> dict[Digest, str]:
        digests = list(faults)
        looks, good_at, now = self.scrubs.looks(digests), self.checker.records.hashed_at(digests), self.clock()
        return {
            digest: fault
            for digest, fault in faults.items()
            if digest not in looks or not looks[digest].at < good_at.get(digest, 0.0) <= now
        }


@dataclass(slots=True)
class _Run:
    """The looks of one scrub."""

    scrubber: Scrubber
    since: float
    full: bool
    manner: Manner
    progress: JobProgress
    hashed: int = 0
    faults: dict[Digest, str] = field(default_factory=dict)

    async def look_at(self, due: Sequence[Due]) -> None:
        rate = self.scrubber.background.rate
        limit = _AT_ONCE_BYTES if rate is None else min(_AT_ONCE_BYTES, rate * _PLACE_SECONDS)
        quick, batch, size = True, list[Due](), 0
        for each in due:
            is_quick, cost = self._is_quick(each), each.size + FILE_BYTES
            if batch and (is_quick != quick or len(batch) == _AT_ONCE or size + cost > limit):
                await self._look(batch, quick)
                batch, size = [], 0
            quick, size = is_quick, size + cost
            batch.append(each)
        if batch:
            await self._look(batch, quick)

    def _is_quick(self, due: Due) -> bool:
        place = self.scrubber.scrubs.place(self.since)
        if place is not None and place.digest == due.digest and place.offset is None:
            return True  # its hash was interrupted
        return not self.full and due.quick + 1 < self.scrubber.full_every

    async def _look(self, batch: Sequence[Due], quick: bool) -> None:
        """At blobs that no other scrub has looked at meanwhile."""
        checker, scrubs = self.scrubber.checker, self.scrubber.scrubs
        digests, goes_on = [each.digest for each in batch], scrubs.place(self.since) is not None
        async with self._turn():
            looks, began = await checker.name_changes.in_thread(partial(scrubs.looks, digests)), self.scrubber.clock()
            passed = {digest: look for digest, look in looks.items() if look.counts(self.since, began, full=self.full)}
            self.faults.update((digest, look.fault) for digest, look in passed.items() if look.fault is not None)
            left = [each for each in batch if each.digest not in passed]
            size = sum(each.size for each in batch) - sum(each.size for each in left)
            self.progress.advance(done=size, kept=size)
            digests = [each.digest for each in left]
            with self.scrubber.holds.relying_on(*digests, checker.name_changes.layout.staging):
                findings = await self._check(digests, quick)
            await self._record(left, findings, min(began, self.since) if goes_on else began)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """While no other scrub reads. Raises Stopped also while it waits: the other may read a blob for hours."""
        reading = self.scrubber.reading
        while True:
            check(self.progress)
            with anyio.move_on_after(_LOOK_SECONDS) as waiting:
                await reading.acquire()
            if not waiting.cancelled_caught:
                break
        try:
            yield
        finally:
            reading.release()

    async def _check(self, digests: Sequence[Digest], quick: bool) -> dict[Digest, Finding]:
        """Keeps the place meanwhile. Raises when the store goes away: what is then missing is no damage."""
        checker, background = self.scrubber.checker, self.scrubber.background
        background.place = self.scrubber.scrubs.place(self.since)
        findings: dict[Digest, Finding] = {}
        fault: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_place)
            try:
                findings = await checker.check(digests, replace(self.manner, quick=quick), self.progress)
                if any(finding.fault is not None for finding in findings.values()):
                    await checker.name_changes.in_thread(self.scrubber.lock.check)
            except Exception as error:  # noqa: BLE001 - raised below, out of the task group
                fault = error
                with anyio.CancelScope(shield=True):
                    await self._record_place()
            finally:
                tasks.cancel_scope.cancel()
        if fault is not None:
            raise fault
        return findings

    async def _keep_place(self) -> None:
        while True:
            await anyio.sleep(_PLACE_SECONDS)
            await self._record_place()

    async def _record_place(self) -> None:
        place = self.scrubber.background.place
        if place is not None and place.offset != 0:
            await self.scrubber.scrubs.reached(place, self.since)

    async def _record(self, due: Sequence[Due], findings: Mapping[Digest, Finding], began: float) -> None:
        """The looks count from when they began: a scrub that is requested during one reads the blob again."""
        self.scrubber.background.place = None
        looked = []
        for each in due:
            finding = findings[each.digest]
            was_hashed = finding.outcome.actual is not None
            self.hashed += was_hashed
            if finding.fault is not None:
                self.faults[each.digest] = finding.fault
            if finding.outcome.outcome != "unreadable":  # a blob that cannot be read stays due
                looked.append((each.digest, Look(began, 0 if was_hashed else each.quick + 1, finding.fault)))
        await self.scrubber.scrubs.looked(looked)
