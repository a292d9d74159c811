"""What is done with models that are here: named anew, verified, listed by a query, counted, and swept after.

The part of the store's face that is not adding and not the plain reads.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from modeld.progress import JobProgress
from modeld.store.blobs import quarantine
from modeld.store.blobs.blobs import Blob, stat_blob
from modeld.store.catalog.history import NOBODY, Asker, History, rfc3339
from modeld.store.catalog.uses import Uses
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import StoreLock
from modeld.store.disk.space import free_bytes_under
from modeld.store.maintain import usage
from modeld.store.maintain.sweep import Sweeper
from modeld.store.maintain.verify import Failed, Integrity
from modeld.store.manifests.entries import MANY, Entry
from modeld.store.manifests.manifests import Manifest
from modeld.store.manifests.named import blobs_named
from modeld.store.manifests.selection import Selections
from modeld.store.names import ModelName
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import Stop, never
from modeld.store.publish.publishing import Counter, Notes
from modeld.store.publish.records import Records
from modeld.store.publish.renaming import Naming
from modelwire.errors import Corrupt, WireError
from modelwire.values import Copied, ModelList, ModelView, Moved, QuarantineList, Removed, Swept, Usage, Verification

_WALKS: Final = 1
"""Counting a big store takes a second of a disk and of the interpreter: one after the other."""

_AT_ONCE: Final = 200


def nobody_is_told(_name: str, _digest: object, _reason: str) -> None:
    pass


class Care:
    """For the event loop."""

    def __init__(
        self,
        lock: StoreLock,
        counter: Counter,
        records: Records,
        history: History,
        byte_threads: anyio.CapacityLimiter,
        grace: float,
        uses: Uses,
    ) -> None:
        self._lock = lock
        self._counter = counter
        self._records = records
        self._walks = anyio.CapacityLimiter(_WALKS)
        self.holds = Holds()
        self.uses = uses
        self.history = history
        self._naming = Naming(counter, records, self.holds, uses)
        self._integrity = Integrity(counter, records, history, byte_threads)
        self._sweeper = Sweeper(counter, records, self.holds, grace)
        self._selections = Selections(counter.index, uses)

    # -- names

    def plan_copy(self, source: str, destination: str) -> Copied:
        """What `copy` would do, and what it would refuse."""
        return self._naming.plan_copy(source, destination)

    async def copy(
        self,
        source: str,
        destination: str,
        *,
        order: int = 0,
        notes: Notes[Copied] | None = None,
        stopped: Stop = never,
    ) -> Copied:
        self._lock.check()
        return await self._naming.copy(source, destination, order=order, notes=notes, stopped=stopped)

    async def move(
        self,
        source: str,
        destination: str,
        *,
        order: int = 0,
        notes: Notes[Moved] | None = None,
        stopped: Stop = never,
        earlier: Moved | None = None,
    ) -> Moved:
        self._lock.check()
        moved = await self._naming.move(source, destination, order=order, notes=notes, stopped=stopped, earlier=earlier)
        await self.history.renamed(ModelName.parse(moved.source), ModelName.parse(moved.name))
        return moved

    async def remove(
        self,
        name: str,
        *,
        force: bool = False,
        order: int = 0,
        notes: Notes[Removed] | None = None,
        stopped: Stop = never,
    ) -> Removed:
        self._lock.check()
        removed = await self._naming.remove(name, force=force, order=order, notes=notes, stopped=stopped)
        await self.history.forget_name(ModelName.parse(removed.name))
        return removed

    def copied(self, value: Copied) -> bool:
        """Whether that copy exists: what a restart asks about a job cut short. So for the next two."""
        return self._naming.copied(value)

    def moved(self, value: Moved) -> bool:
        return self._naming.moved(value)

    def removed(self, value: Removed) -> bool:
        return self._naming.removed(value)

    async def refused(self, name: ModelName, expected: Digest, actual: Digest, source: str, asker: Asker) -> None:
        """Kept with the model of that name, if there is one: who offered other bytes for it, when, and from where."""
        standing = self._counter.index.entry(name)
        if standing is not None:
            await self.history.refused(standing.name, expected, actual, source, asker)

    # -- bytes

    async def verify(
        self,
        names: Sequence[str] | None = None,
        *,
        order: int = 0,
        observer: JobProgress | None = None,
        asker: Asker = NOBODY,
        failed: Failed = nobody_is_told,
    ) -> Verification:
        """All models, or these; `failed` is told of each model that a corrupt blob takes out of use."""
        self._lock.check()
        return await self._integrity.verify(
            names, order=order, observer=observer or JobProgress(), asker=asker, failed=failed
        )

    async def sweep(
        self, *, dry_run: bool = False, grace: float | None = None, order: int = 0, observer: JobProgress | None = None
    ) -> Swept:
        """`grace` stands for the configured one."""
        self._lock.check()
        return await self._sweeper.sweep(dry_run=dry_run, grace=grace, order=order, observer=observer or JobProgress())

    # -- looking

    async def show(self, name: str) -> ModelView:
        """All about one model: its manifest as it is in the file, and what became of each look at its bytes."""
        entry = self._counter.index.find(name)
        view = self._selections.with_use(entry.view())
        named = list(blobs_named(entry.usable()))
        if len(named) > MANY:
            blobs = await anyio.to_thread.run_sync(partial(_there, self._counter.layout, named), limiter=self._walks)
        else:
            blobs = _there(self._counter.layout, named)
        verified = await self._records.verified_at(blobs) if len(blobs) == len(named) else None
        return msgspec.structs.replace(
            view,
            manifest=entry.document(),
            verified_at=None if verified is None else rfc3339(verified),
            history=await self.history.of(named, entry.name),
        )

    async def select(self, filter_text: str | None, sort: str | None, *, after: str | None, limit: int) -> ModelList:
        return await self._selections.page(filter_text, sort, after=after, limit=limit)

    async def quarantined(self) -> QuarantineList:
        return await anyio.to_thread.run_sync(partial(quarantine.kept, self._counter.layout), limiter=self._walks)

    async def usage(self) -> Usage:
        layout, index = self._counter.layout, self._counter.index
        named: dict[str, dict[str, int]] = {}
        for number, text in enumerate(list(index.names()), 1):
            entry: Entry | None = index.entry(ModelName.parse(text))
            if entry is not None and entry.manifest is not None:
                named[text] = _stands_for(entry.manifest)
            if number % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        free: int | None = None
        with suppress(WireError):
            free = free_bytes_under(layout.root)
        return await anyio.to_thread.run_sync(partial(usage.usage, layout, named, free), limiter=self._walks)


def _there(layout: Layout, digests: Sequence[Digest]) -> list[Blob]:
    found = []
    for digest in digests:
        with suppress(Corrupt):  # what is no file is no blob
            blob = stat_blob(layout, digest)
            if blob is not None:
                found.append(blob)
    return found


def _stands_for(manifest: Manifest) -> dict[str, int]:
    """Each blob in hex, and how many bytes of the model it is."""
    if not manifest.files:
        return {manifest.digest.hex: manifest.size_bytes}
    sizes: Tally[str] = Tally()
    for file in manifest.files:
        sizes[file.blob.removeprefix("sha256:")] += file.size_bytes
    return dict(sizes)
