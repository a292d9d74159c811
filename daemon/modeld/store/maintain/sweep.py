"""The sweep removes blobs, partials and trees that nothing holds.

It decides on each victim twice: on a walk beside all other work, and again in the publisher's turn, right before the
removal. So no add can be between finding a blob and naming it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import anyio

from modeld.progress import JobProgress, Stopped
from modeld.store.catalog.records import Records
from modeld.store.digest import Digest
from modeld.store.disk.durable import store_faults
from modeld.store.disk.locks import NameLock, StoreLock
from modeld.store.disk.removal import Identity, remove_entry, remove_file
from modeld.store.maintain.leftover_trees import LeftoverTrees
from modeld.store.maintain.victims import PARTIAL_SECONDS, Ages, Candidate, Links, Victims
from modeld.store.maintain.walk import blob_file, partial_at
from modeld.store.manifests.index import Index
from modeld.store.manifests.marks import Marked
from modeld.store.publish.holds import Held, Holds
from modeld.store.publish.name_changes import NameChanges
from modelwire.errors import WireError
from modelwire.values import Swept, Victim

SHOWN: Final = 10_000
"""Victims of one answer: 3 MB, where a reply may have 8."""

NOTED: Final = 100

AT_ONCE: Final = 200
"""Victims removed in one turn: some ten milliseconds in which nothing is published."""

CLOSING_SECONDS: Final = 3.0
"""How long the removal of a partial waits for a cancelled download to close it: that takes milliseconds."""


@dataclass(slots=True)
class _Tally:
    shown: list[Victim] = field(default_factory=list)
    removed: int = 0
    blobs: int = 0
    freed: int = 0
    notes: list[str] = field(default_factory=list)

    def count(self, root: str, victim: Candidate) -> None:
        self.removed += 1
        self.blobs += victim.is_blob
        self.freed += victim.gives_back
        if len(self.shown) < SHOWN:
            path = "/".join((root, *victim.parts))
            self.shown.append(Victim(path=path, kind=victim.kind, size_bytes=victim.size, reason=victim.reason))

    def count_all(self, root: str, victims: list[Candidate]) -> None:
        """For a thread: there may be many. It lets other threads run in between, or each step of the event loop would
        wait 5 ms for the interpreter; and it empties the list, which takes as long to free."""
        victims.reverse()
        while victims:
            if len(victims) % AT_ONCE == 0:
                time.sleep(0)
            self.count(root, victims.pop())

    def swept(self, look: Victims, *, dry_run: bool = False) -> Swept:
        return Swept(
            victims=tuple(self.shown),
            removed=self.removed,
            freed_bytes=self.freed,
            dry_run=dry_run,
            kept=max(0, look.blobs - self.blobs),
            waiting=look.waiting.blobs,
            waiting_bytes=look.waiting.gives_back,
            waiting_s=look.waiting.longest,
            notes=tuple(self.notes[:NOTED]),
        )


class Sweeper:
    """One sweep at a time; a second one waits for the first."""

    def __init__(
        self,
        name_changes: NameChanges,
        lock: StoreLock,
        records: Records,
        holds: Holds,
        grace: float,
        clock: Callable[[], float] = time.time,
        *,
        at_sites: Mapping[str, Index] | None = None,
    ) -> None:
        """`grace` is the configured period, `at_sites` the models of each site, by the directory of its trees."""
        self._name_changes = name_changes
        self._layout = name_changes.layout
        self._lock = lock
        self._records = records
        self._holds = holds
        self._grace = grace
        self._clock = clock
        self._marks = name_changes.index.marks
        self._unnamed = name_changes.unnamed
        self._trees = LeftoverTrees(name_changes, records, holds, at_sites or {})
        self._alone = anyio.Lock()

    async def sweep(
        self,
        *,
        dry_run: bool = False,
        grace: float | None = None,
        partials: bool = False,
        order: int = 0,
        progress: JobProgress | None = None,
    ) -> Swept:
        """`grace` replaces the configured one. `partials` takes every partial download that no open job needs."""
        await self._name_changes.in_thread(self._lock.check)
        progress = progress or JobProgress()
        async with self._alone:
            progress.phase("checking_local")
            ages, noted = self._ages(grace), self._unnamed.noted()
            if partials:
                ages = replace(ages, partial=float("-inf"))
            trees = await self._trees.leftovers(ages)
            links = await self._name_changes.in_thread(partial(self._trees.links_in, trees))
            look, candidates, marked = await self._name_changes.in_thread(partial(self._look, ages, links, progress))
            if look.unfinished:
                look.notes.append(_kept_for_later(look.unfinished))
            tally = _Tally(notes=look.notes)
            if not dry_run:
                await self._remove(candidates, tally, order, progress)
                # The blobs first: losing a link makes a blob look used.
                trees = await self._trees.remove(trees, order, tally.notes)
                await self._unnamed.walked(ages.now)
                # The others keep their time: the grace of this sweep may not be the configured one.
                _, done = await self._name_changes.in_thread(partial(self._left, map(Digest, noted), marked, ages))
                await self._unnamed.settle(noted, {}, done)
            shown = [*candidates, *trees] if dry_run else [*trees]
            candidates.clear()
            await self._name_changes.in_thread(partial(tally.count_all, self._layout.root, shown))
            return tally.swept(look, dry_run=dry_run)

    async def sweep_blobs(self, digests: Collection[Digest], *, grace: float | None = None, order: int = 0) -> Swept:
        """The sweep of these blobs alone: it looks at the manifests and at these files, and walks nowhere."""
        await self._name_changes.in_thread(self._lock.check)
        progress = JobProgress()
        async with self._alone:
            ages, noted = self._ages(grace), self._unnamed.noted(digests)
            look_at = partial(self._look, ages, {}, progress, digests)
            look, candidates, marked = await self._name_changes.in_thread(look_at)
            tally = _Tally(notes=look.notes)
            await self._remove(candidates, tally, order, progress)
            later, done = await self._name_changes.in_thread(partial(self._left, digests, marked, ages))
            await self._unnamed.settle(noted, later, done)
            return tally.swept(look)

    async def empty_quarantine(
        self, *, dry_run: bool = False, order: int = 0, progress: JobProgress | None = None
    ) -> Swept:
        """Removes everything in quarantine, and nothing else."""
        await self._name_changes.in_thread(self._lock.check)
        progress = progress or JobProgress()
        async with self._alone:
            ages = replace(self._ages(None), quarantine=float("-inf"))
            look = Victims(self._layout, ages, frozenset(), self._holds, {}, progress.stopped)
            candidates = await self._name_changes.in_thread(lambda: list(look.in_quarantine()))
            tally = _Tally(notes=look.notes)
            if not dry_run:
                await self._remove(candidates, tally, order, progress)
            if dry_run:
                await self._name_changes.in_thread(partial(tally.count_all, self._layout.root, candidates))
            return tally.swept(look, dry_run=dry_run)

    async def discard_partials(self, places: Collection[Held]) -> int:
        """Removes the partial downloads at these places, unless running work has them or an open job goes on with them;
        returns their bytes."""
        await self._name_changes.in_thread(self._lock.check)
        return await self._name_changes.in_thread(partial(self._discard_partials, places))

    def _discard_partials(self, places: Collection[Held]) -> int:
        freed = 0
        for held in set(places) - self._holds.partials():
            path = self._layout.partial_dir(held) if isinstance(held, Digest) else held
            with self._holds.removing(held, CLOSING_SECONDS) as free, store_faults("remove the partial", path):
                found = partial_at(self._layout, tuple(path[len(self._layout.root) + 1 :].split("/")))
                if free and found is not None and remove_entry(self._layout.root, found.parts, Identity.of(found.info)):
                    freed += found.size
        return freed

    # -- looking

    def _ages(self, grace: float | None) -> Ages:
        return Ages(self._clock(), self._grace if grace is None else grace, since=self._unnamed.since)

    def _look(
        self, ages: Ages, links: Links, progress: JobProgress, among: Collection[Digest] | None = None
    ) -> tuple[Victims, list[Candidate], Marked]:
        marked = self._marks.look()
        held = marked.digests | self._holds.blobs()
        victims = Victims(self._layout, ages, held, self._holds, links, progress.stopped)
        if marked.unreadable:
            victims.notes.append(f"no blob is removed: {marked.unreadable[0]} cannot be read and may name any of them")
        if among is not None:
            return victims, [] if marked.unreadable else list(victims.among(among)), marked
        candidates = list(victims.candidates(blobs_too=not marked.unreadable))
        progress.total(sum(victim.size for victim in candidates))
        return victims, candidates, marked

    def _left(self, digests: Iterable[Digest], marked: Marked, ages: Ages) -> tuple[dict[str, float], list[str]]:
        """After a sweep of these blobs: those that a later one looks at, with the time from which they count as
        unnamed, and those that are gone or named."""
        later: dict[str, float] = {}
        done: list[str] = []
        for digest in digests:
            found = blob_file(self._layout, digest)
            if found is None or digest.hex in marked.digests:
                done.append(digest.hex)
            else:
                # Too young by its own times, or held, which may last.
                unused = ages.unnamed(found)
                later[digest.hex] = ages.now - unused if 0 <= unused < ages.grace else ages.now
        return later, done

    # -- removing

    async def _remove(self, victims: Sequence[Candidate], tally: _Tally, order: int, progress: JobProgress) -> None:
        for first in range(0, len(victims), AT_ONCE):
            if progress.stopped():
                raise Stopped
            some = victims[first : first + AT_ONCE]
            async with self._name_changes.publisher.turn(order):
                progress.phase("publish")
                with anyio.CancelScope(shield=True):
                    gone = await self._name_changes.in_thread(partial(self._remove_some, some, tally))
            for victim in gone:
                progress.advance(done=victim.size)
            await self._records.forget(*(Digest(victim.digest) for victim in gone if victim.digest and victim.is_blob))

    def _remove_some(self, victims: Sequence[Candidate], tally: _Tally) -> list[Candidate]:
        """Blocking, in the publisher's turn: this daemon publishes nothing meanwhile."""
        self._lock.check()  # of another store that came to the root's path since, this daemon knows no leases
        marked = self._marks.look()
        held = marked.digests | self._holds.blobs()
        gone: list[Candidate] = []
        for victim in victims:
            if victim.is_blob and (marked.unreadable or victim.digest in held):
                continue
            with self._holds.removing(victim.held_as(self._layout.root)) as free:
                try:
                    removed = free and self._remove_one(victim)
                except OSError as fault:
                    tally.notes.append(f"{'/'.join(victim.parts)} cannot be removed: {fault.strerror or fault}")
                    continue
            if removed:
                gone.append(victim)
                tally.count(self._layout.root, victim)
        return gone

    def _remove_one(self, victim: Candidate) -> bool:
        root = self._layout.root
        if victim.kind == "lock":
            return self._remove_lock(victim)
        if not victim.is_blob:
            return remove_entry(root, victim.parts, victim.identity)
        removed = remove_file(root, victim.parts, victim.identity)
        if removed and victim.digest is not None:
            self._name_changes.index.trees.linked.forget(Digest(victim.digest))
            with suppress(OSError):  # the checksums for a repair of the removed blob
                os.unlink(self._layout.blocks(Digest(victim.digest)))
        return removed

    def _remove_lock(self, victim: Candidate) -> bool:
        """With the lock held: no program holds it then, and one that opened the file before finds it without a name."""
        path, stem = "/".join((self._layout.root, *victim.parts)), os.path.splitext(victim.parts[-1])[0]
        try:
            lock = NameLock.take(path)
        except WireError:
            return False
        if lock is None:
            return False
        try:
            if os.path.lexists(f"{self._layout.manifests_dir}/{stem}.json"):
                return False
            os.unlink(path)
        finally:
            lock.release()
        return True


def _kept_for_later(sizes: Sequence[int]) -> str:
    downloads = "1 unfinished download" if len(sizes) == 1 else f"{len(sizes)} unfinished downloads"
    days = PARTIAL_SECONDS // 86_400
    return f"{downloads} ({sum(sizes)} bytes) will be kept until {days} days after the last resume"
