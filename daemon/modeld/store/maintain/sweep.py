"""The sweep removes blobs, partials and trees that nothing holds.

It decides on each victim twice: on a walk beside all other work, and again in the publisher's turn, right before the
removal. So no add can be between finding a blob and naming it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio

from modeld.progress import JobProgress, Stopped
from modeld.store.catalog.records import Records
from modeld.store.digest import Digest
from modeld.store.disk.locks import StoreLock
from modeld.store.disk.removal import remove_entry, remove_file
from modeld.store.maintain.leftover_trees import LeftoverTrees
from modeld.store.maintain.marks import Marks
from modeld.store.maintain.victims import PARTIAL_SECONDS, Ages, Candidate, Links, Victims
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import NameChanges
from modelwire.values import Swept, Victim

SHOWN: Final = 10_000
"""Victims of one answer: 3 MB, where a reply may have 8."""

NOTED: Final = 100

AT_ONCE: Final = 200
"""Victims removed in one turn: some ten milliseconds in which nothing is published."""


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
    ) -> None:
        self._name_changes = name_changes
        self._layout = name_changes.layout
        self._lock = lock
        self._records = records
        self._holds = holds
        self._grace = grace
        self._clock = clock
        self._marks = Marks(name_changes.layout)
        self._trees = LeftoverTrees(name_changes, records)
        self._alone = anyio.Lock()

    async def sweep(
        self, *, dry_run: bool = False, grace: float | None = None, order: int = 0, progress: JobProgress | None = None
    ) -> Swept:
        """`grace` replaces the configured one."""
        await self._name_changes.in_thread(self._lock.check)
        progress = progress or JobProgress()
        async with self._alone:
            progress.phase("checking_local")
            ages = Ages(self._clock(), self._grace if grace is None else grace)
            trees = await self._trees.leftovers(ages)
            links = await self._name_changes.in_thread(partial(self._trees.links_in, trees))
            look, candidates = await self._name_changes.in_thread(partial(self._look, ages, links, progress))
            if look.unfinished:
                look.notes.append(_kept_for_later(look.unfinished))
            progress.total(sum(victim.size for victim in candidates))
            tally = _Tally(notes=look.notes)
            if not dry_run:
                await self._remove(candidates, tally, order, progress)
                # The blobs first: losing a link makes a blob look used.
                trees = await self._trees.remove(trees, order, tally.notes)
            for victim in [*candidates, *trees] if dry_run else trees:
                tally.count(self._layout.root, victim)
            return Swept(
                victims=tuple(tally.shown),
                removed=tally.removed,
                freed_bytes=tally.freed,
                dry_run=dry_run,
                kept=max(0, look.blobs - tally.blobs),
                waiting=look.waiting.blobs,
                waiting_bytes=look.waiting.gives_back,
                waiting_s=look.waiting.longest,
                notes=tuple(tally.notes[:NOTED]),
            )

    def _look(self, ages: Ages, links: Links, progress: JobProgress) -> tuple[Victims, list[Candidate]]:
        marked = self._marks.look()
        victims = Victims(self._layout, ages, marked.digests | self._holds.blobs(), links, progress.stopped)
        if marked.unreadable:
            victims.notes.append(f"no blob is removed: {marked.unreadable[0]} cannot be read and may name any of them")
        return victims, list(victims.candidates(blobs_too=not marked.unreadable))

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
        marked = self._marks.look()
        held = marked.digests | self._holds.blobs()
        gone: list[Candidate] = []
        for victim in victims:
            if victim.digest is not None and (marked.unreadable or victim.digest in held):
                continue
            try:
                removed = self._remove_one(victim)
            except OSError as fault:
                tally.notes.append(f"{'/'.join(victim.parts)} cannot be removed: {fault.strerror or fault}")
                continue
            if removed:
                gone.append(victim)
                tally.count(self._layout.root, victim)
        return gone

    def _remove_one(self, victim: Candidate) -> bool:
        root = self._layout.root
        if not victim.is_blob:
            return remove_entry(root, victim.parts, victim.identity)
        removed = remove_file(root, victim.parts, victim.identity)
        if removed and victim.digest is not None:
            self._name_changes.index.trees.linked.forget(Digest(victim.digest))
            with suppress(OSError):  # the checksums for a repair of the removed blob
                os.unlink(self._layout.blocks(Digest(victim.digest)))
        return removed


def _kept_for_later(sizes: Sequence[int]) -> str:
    downloads = "1 unfinished download" if len(sizes) == 1 else f"{len(sizes)} unfinished downloads"
    days = PARTIAL_SECONDS // 86_400
    return f"{downloads} ({sum(sizes)} bytes) will be kept until {days} days after the last resume"
