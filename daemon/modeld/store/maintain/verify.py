"""Verifying models: every byte is hashed again, several blobs at a time, and what is bad is taken out of use.

A corrupt blob goes to quarantine in the publisher's turn, after it was looked at once more: somebody may have put good
bytes there meanwhile. Why it went is written down before it goes, so each model that names it can say so, also after
a crash in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from modeld.progress import FileProgress, JobProgress, check
from modeld.store.blobs import blobs
from modeld.store.blobs.blobs import Blob
from modeld.store.blobs.quarantine import quarantine
from modeld.store.catalog.history import Asker, Condemned, History, Outcome
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.named import blobs_named
from modeld.store.names import ModelName
from modeld.store.publish.publishing import Counter
from modeld.store.publish.records import Records
from modelwire.errors import Corrupt, NotFound, WireError
from modelwire.values import Verification, Verified

T = TypeVar("T")

Failed = Callable[[str, Digest, str], None]
"""Told of each model that a corrupt blob has taken out of use: its name, the blob, why."""

SHOWN: Final = 10_000
"""Models of one answer: 3 MB, where a reply may have 8."""

MAX_ATTEMPTS: Final = 3
"""At a blob that changes while it is looked at."""

_AT_ONCE: Final = 200
"""Models between two looks at what else the event loop has to do; outcomes in one transaction."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one blob was found to be. `fault` is None when it is good."""

    outcome: Outcome
    blob: Blob | None = None
    fault: str | None = None
    kept_at: str | None = None


class Integrity:
    """For the event loop; the hashing is done in `threads`."""

    def __init__(self, counter: Counter, records: Records, history: History, threads: anyio.CapacityLimiter) -> None:
        self.counter = counter
        self.records = records
        self.history = history
        self.threads = threads

    async def verify(
        self, names: Sequence[str] | None, *, order: int, observer: JobProgress, asker: Asker, failed: Failed
    ) -> Verification:
        """These models, or all of them. `NotFound` before the first byte is read when there is no such model."""
        entries = await self._entries(names)
        observer.phase("verify")
        looking = _Looking(self, order, observer, asker, failed)
        sizes: dict[Digest, int] = {}
        for entry in entries:
            if entry.manifest is not None:
                sizes.update(blobs_named(entry.manifest))
        observer.total(sum(sizes.values()))
        looks = await looking.at(list(sizes))
        return _verification([_judged(entry, looks) for entry in entries], sum(sizes.values()))

    async def models_naming(self, digest: Digest) -> list[str]:
        return [
            entry.name.text
            for entry in await self._entries(None)
            if entry.manifest is not None and digest in blobs_named(entry.manifest)
        ]

    async def _entries(self, names: Sequence[str] | None) -> list[Entry]:
        index = self.counter.index
        if names is not None:
            found = [index.find(name) for name in names]
            return list({entry.name: entry for entry in found}.values())
        entries: list[Entry] = []
        for number, text in enumerate(list(index.names()), 1):
            entry = index.entry(ModelName.parse(text))
            if entry is not None:
                entries.append(entry)
            if number % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        return entries


class _Looking:
    """One verification under way."""

    def __init__(self, room: Integrity, order: int, observer: JobProgress, asker: Asker, failed: Failed) -> None:
        self._room = room
        self._layout = room.counter.layout
        self._order = order
        self._observer = observer
        self._shared = FileProgress(observer)
        self._asker = asker
        self._failed = failed
        self._looks: dict[Digest, Look] = {}
        self._unwritten: list[Look] = []
        self._faults: list[Exception] = []

    async def at(self, digests: Sequence[Digest]) -> dict[Digest, Look]:
        waiting = iter(digests)
        workers = min(len(digests), int(self._room.threads.total_tokens))
        try:
            async with anyio.create_task_group() as tasks:
                for _worker in range(workers):
                    tasks.start_soon(self._work, waiting)
        finally:
            with anyio.CancelScope(shield=True):
                await self._write_down()
        if self._faults:
            raise self._faults[0]
        return self._looks

    async def _work(self, waiting: Iterator[Digest]) -> None:
        for digest in waiting:
            if self._faults:
                return
            try:
                look = await self._look(digest)
            except Exception as fault:  # noqa: BLE001 - raised when the others have stopped, and not as a group
                self._faults.append(fault)
                return
            self._looks[digest] = look
            self._unwritten.append(look)
            if len(self._unwritten) >= _AT_ONCE:
                await self._write_down()

    async def _look(self, digest: Digest) -> Look:
        for _attempt in range(MAX_ATTEMPTS):
            look = await anyio.to_thread.run_sync(
                partial(_look_at, self._layout, digest, self._shared), limiter=self._room.threads
            )
            if look.outcome.outcome != "corrupt":
                return self._explained(look)
            condemned = await self._condemn(look)
            if condemned is not None:
                return condemned
        raise Corrupt(
            f"{self._layout.blob(digest)} changes each time it is looked at",
            hint="find the program that writes to blobs of this store",
            details={"path": self._layout.blob(digest)},
        )

    def _explained(self, look: Look) -> Look:
        """A blob that is missing because it was found bad before says so."""
        known = self._room.history.why(look.outcome.digest) if look.outcome.outcome == "missing" else None
        return look if known is None else Look(look.outcome, None, known.sentence, known.kept_at)

    async def _condemn(self, look: Look) -> Look | None:
        """Out of use with it. None when it is not the same any more that was looked at."""
        digest, history, counter = look.outcome.digest, self._room.history, self._room.counter
        reason = look.fault or "its blob is corrupt"
        async with counter.publisher.turn(self._order):
            check(self._observer)
            with anyio.CancelScope(shield=True):
                if not await self._blocking(partial(_unchanged, self._layout, look)):
                    return None
                self._observer.phase("quarantine")
                await history.condemn(digest, Condemned(reason))
                try:
                    kept_at = await self._blocking(partial(_set_aside, self._layout, digest))
                except BaseException:
                    if os.path.lexists(self._layout.blob(digest)):
                        await history.acquit([digest])
                    raise
                # ---- It is out of use: from here on it is only told. ----
                condemned = Condemned(reason, kept_at)
                await history.condemn(digest, condemned)
                await self._room.records.gone(digest)
                counter.index.trees.linked.forget(digest)
        self._observer.phase("verify")
        for name in await self._room.models_naming(digest):
            self._failed(name, digest, condemned.sentence)
        return Look(look.outcome, look.blob, condemned.sentence, kept_at)

    async def _write_down(self) -> None:
        looks, self._unwritten = self._unwritten, []
        good = [look.blob for look in looks if look.fault is None and look.blob is not None]
        await self._room.records.verified(good)
        await self._room.history.acquit(blob.digest for blob in good)
        await self._room.history.record([look.outcome for look in looks], self._asker)

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._room.counter.threads)


def _look_at(layout: Layout, digest: Digest, observer: FileProgress) -> Look:
    """Blocking. Raises nothing but `Stopped`: a blob that cannot be read is an outcome too."""
    check(observer)
    path = layout.blob(digest)
    try:
        if blobs.stat_blob(layout, digest) is None:
            return Look(Outcome(digest=digest, outcome="missing"), None, f"its blob is missing: {path}")
        verified = blobs.verify_blob(layout, digest, observer, as_done=True)
    except NotFound:
        return Look(Outcome(digest=digest, outcome="missing"), None, f"its blob is missing: {path}")
    except Corrupt as fault:
        return Look(Outcome(digest=digest, outcome="corrupt"), None, fault.message)
    except WireError as fault:
        return Look(Outcome(digest=digest, outcome="unreadable"), None, fault.message)
    if verified.good:
        return Look(Outcome(digest=digest, outcome="verified", actual=digest), verified.blob)
    return Look(
        Outcome(digest=digest, outcome="corrupt", actual=verified.actual),
        verified.blob,
        f"its blob is corrupt: the bytes hash to {verified.actual.text}, not to {digest.text}",
    )


def _unchanged(layout: Layout, look: Look) -> bool:
    try:
        now = blobs.stat_blob(layout, look.outcome.digest)
    except Corrupt:
        return look.blob is None  # still something that is no file
    return now is not None and look.blob is not None and now.signature == look.blob.signature


def _set_aside(layout: Layout, digest: Digest) -> str:
    """Blocking; where the bytes lie now. What cannot be synced is found and set aside again after a crash."""
    path = layout.blob(digest)
    with store_faults("set aside the corrupt blob", path):
        kept_at = quarantine(layout, path, "corrupt-blob")
    with suppress(OSError):
        durable.sync_directory(layout.quarantine_dir)
        durable.sync_directory(os.path.dirname(path))
        os.rmdir(os.path.dirname(path))
    return kept_at


def _judged(entry: Entry, looks: dict[Digest, Look]) -> Verified:
    if entry.manifest is None:
        why = entry.fault.message if entry.fault is not None else f"{entry.path} cannot be used"
        return Verified(name=entry.name.text, ok=False, expected="", actual=None, files=0, reason=why)
    manifest = entry.manifest
    named = blobs_named(manifest)
    first = next((looks[digest] for digest in named if looks[digest].fault is not None), looks[manifest.digest])
    reason = first.fault or entry.missing()
    return Verified(
        name=manifest.name,
        ok=reason is None,
        expected=first.outcome.digest.text,
        actual=None if first.outcome.actual is None else first.outcome.actual.text,
        size_bytes=sum(named.values()),
        files=max(1, len(manifest.files)),
        reason=reason,
        quarantine_path=first.kept_at,
    )


def _verification(models: list[Verified], size: int) -> Verification:
    bad = [model for model in models if not model.ok]
    shown = models if len(models) <= SHOWN else [*bad, *(model for model in models if model.ok)][:SHOWN]
    return Verification(models=tuple(shown), ok=not bad, checked=len(models), failed=len(bad), size_bytes=size)
