"""Verifying models: every byte is hashed again, several blobs at a time, and bad blobs are taken out of use.

A corrupt blob goes to quarantine in the publisher's turn, after a second look: another program may have put good bytes
there meanwhile. The reason is recorded before the blob is moved, so each model that names it reports the reason, also
after a crash in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from modeld.progress import FileProgress, JobProgress, check
from modeld.store.blobs import blobs
from modeld.store.blobs.blobs import Blob
from modeld.store.blobs.quarantine import quarantine
from modeld.store.catalog.history import THE_DAEMON, Condemned, History, Outcome, Requester
from modeld.store.catalog.records import Records
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import StoreLock
from modeld.store.manifests.entries import Entry
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import NameChanges
from modelwire.errors import Corrupt, NotFound, WireError
from modelwire.values import Verification, Verified

OnFailed = Callable[[str, Digest, str], None]
"""Called for each model that a corrupt blob has taken out of use: its name, the blob, why."""


def ignore_failed(_name: str, _digest: Digest, _reason: str) -> None:
    pass


SHOWN: Final = 10_000
"""Models of one answer: 3 MB, where a reply may have 8."""

MAX_ATTEMPTS: Final = 3
"""For a blob that changes while it is hashed."""

_AT_ONCE: Final = 200
"""Outcomes in one transaction."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one blob. `fault` is None when it is good."""

    outcome: Outcome
    blob: Blob | None = None
    fault: str | None = None
    kept_at: str | None = None


class Verifier:
    """For the event loop; the hashing is done in `threads`."""

    def __init__(
        self,
        name_changes: NameChanges,
        lock: StoreLock,
        records: Records,
        history: History,
        threads: anyio.CapacityLimiter,
        holds: Holds,
    ) -> None:
        self.name_changes = name_changes
        self.records = records
        self.history = history
        self.threads = threads
        self._lock = lock
        self._holds = holds

    async def verify(
        self,
        names: Sequence[str] | None = None,
        *,
        order: int = 0,
        progress: JobProgress | None = None,
        requester: Requester = THE_DAEMON,
        on_failed: OnFailed = ignore_failed,
    ) -> Verification:
        """These models, or all of them. `NotFound`, before the first byte is read, for an unknown name."""
        in_thread = self.name_changes.in_thread
        await in_thread(self._lock.check)
        index, progress = self.name_changes.index, progress or JobProgress()
        if names is None:
            entries = [entry async for entry in index.entries()]
        else:
            found = await in_thread(lambda: [index.find(name) for name in names])
            entries = list({entry.name: entry for entry in found}.values())
        progress.phase("verify")
        digests = list(dict.fromkeys(blob.digest for entry in entries for blob in entry.blobs))
        size = sum((await in_thread(lambda: _sizes(entries))).values())
        progress.total(size)
        with self._holds.relying_on(*digests, self.name_changes.layout.staging):
            findings = await _Run(self, order, progress, requester, on_failed).look_at(digests)
        return await in_thread(lambda: _verification([_judged(entry, findings) for entry in entries], size))


class _Run:
    """One running verification."""

    def __init__(
        self, verifier: Verifier, order: int, progress: JobProgress, requester: Requester, on_failed: OnFailed
    ) -> None:
        self._verifier = verifier
        self._name_changes = verifier.name_changes
        self._layout = verifier.name_changes.layout
        self._order = order
        self._progress = progress
        self._shared = FileProgress(progress)
        self._requester = requester
        self._on_failed = on_failed
        self._findings: dict[Digest, Finding] = {}
        self._unwritten: list[Finding] = []
        self._faults: list[Exception] = []

    async def look_at(self, digests: Sequence[Digest]) -> dict[Digest, Finding]:
        waiting = iter(digests)
        workers = min(len(digests), int(self._verifier.threads.total_tokens))
        try:
            async with anyio.create_task_group() as tasks:
                for _worker in range(workers):
                    tasks.start_soon(self._work, waiting)
        finally:
            with anyio.CancelScope(shield=True):
                await self._write_down()
        if self._faults:
            raise self._faults[0]
        return self._findings

    async def _work(self, waiting: Iterator[Digest]) -> None:
        for digest in waiting:
            if self._faults:
                return
            try:
                finding = await self._look(digest)
            except Exception as fault:  # noqa: BLE001 - raised after the others have stopped, and not as a group
                self._faults.append(fault)
                return
            self._findings[digest] = finding
            self._unwritten.append(finding)
            if len(self._unwritten) >= _AT_ONCE:
                await self._write_down()

    async def _look(self, digest: Digest) -> Finding:
        for _attempt in range(MAX_ATTEMPTS):
            finding = await anyio.to_thread.run_sync(
                partial(_look_at, self._layout, digest, self._shared), limiter=self._verifier.threads
            )
            if finding.outcome.outcome != "corrupt":
                return self._explained(finding)
            condemned = await self._condemn(finding)
            if condemned is not None:
                return condemned
        raise Corrupt(
            f"{self._layout.blob(digest)} changes each time it is looked at",
            hint="Find the program that writes to blobs of this store.",
            details={"path": self._layout.blob(digest)},
        )

    def _explained(self, finding: Finding) -> Finding:
        """Gives a missing blob the reason for which it was set aside."""
        known = self._verifier.history.why(finding.outcome.digest) if finding.outcome.outcome == "missing" else None
        return finding if known is None else Finding(finding.outcome, None, known.sentence, known.kept_at)

    async def _condemn(self, finding: Finding) -> Finding | None:
        """Takes the blob out of use. Returns None when it has changed since the look."""
        digest, history = finding.outcome.digest, self._verifier.history
        reason = finding.fault or "its blob is corrupt"
        async with self._name_changes.publisher.turn(self._order):
            check(self._progress)
            with anyio.CancelScope(shield=True):
                if not await self._name_changes.in_thread(partial(_unchanged, self._layout, finding)):
                    return None
                self._progress.phase("quarantine")
                await history.condemn(digest, Condemned(reason))
                try:
                    kept_at = await self._name_changes.in_thread(partial(_set_aside, self._layout, finding))
                except BaseException:
                    if await self._name_changes.in_thread(partial(os.path.lexists, self._layout.blob(digest))):
                        await history.clear_condemned([digest])
                    raise
                if kept_at is None:
                    await history.clear_condemned([digest])
                    return None
                # ---- The blob is out of use: from here on the change is only recorded. ----
                condemned = Condemned(reason, kept_at)
                await history.condemn(digest, condemned)
                await self._verifier.records.forget(digest)
                await self._name_changes.in_thread(partial(self._name_changes.index.trees.linked.forget, digest))
        self._progress.phase("verify")
        async for entry in self._name_changes.index.entries():
            if entry.manifest is not None and digest in entry.manifest.blobs():
                self._on_failed(entry.name.text, digest, condemned.sentence)
        return Finding(finding.outcome, finding.blob, condemned.sentence, kept_at)

    async def _write_down(self) -> None:
        findings, self._unwritten = self._unwritten, []
        good = [finding.blob for finding in findings if finding.fault is None and finding.blob is not None]
        await self._verifier.records.record_verified(good)
        linked = self._name_changes.index.trees.linked
        for blob in good:
            if linked.signature(blob.digest) not in (None, blob.signature):
                await self._name_changes.in_thread(partial(linked.good, blob.digest, blob.signature))
        await self._verifier.history.clear_condemned(blob.digest for blob in good)
        await self._verifier.history.record([finding.outcome for finding in findings], self._requester)


def _look_at(layout: Layout, digest: Digest, progress: FileProgress) -> Finding:
    """Blocking. Raises nothing but `Stopped`: a blob that cannot be read is an outcome too."""
    check(progress)
    path = layout.blob(digest)
    try:
        if blobs.stat_blob(layout, digest) is None:
            return Finding(Outcome(digest=digest, outcome="missing"), None, f"its blob is missing: {path}")
        verified = blobs.verify_blob(layout, digest, progress, as_done=True)
    except NotFound:
        return Finding(Outcome(digest=digest, outcome="missing"), None, f"its blob is missing: {path}")
    except Corrupt as fault:
        return Finding(Outcome(digest=digest, outcome="corrupt"), None, fault.message)
    except WireError as fault:
        return Finding(Outcome(digest=digest, outcome="unreadable"), None, fault.message)
    if verified.good:
        return Finding(Outcome(digest=digest, outcome="verified", actual=digest), verified.blob)
    return Finding(
        Outcome(digest=digest, outcome="corrupt", actual=verified.actual),
        verified.blob,
        f"its blob is corrupt: the bytes hash to {verified.actual.text}, not to {digest.text}",
    )


def _unchanged(layout: Layout, finding: Finding) -> bool:
    try:
        now = blobs.stat_blob(layout, finding.outcome.digest)
    except Corrupt:
        return finding.blob is None  # still not a regular file
    return now is not None and finding.blob is not None and now.signature == finding.blob.signature


def _set_aside(layout: Layout, finding: Finding) -> str | None:
    """Blocking; returns the path in the quarantine, None when another file has just taken the blob's place. A move that
    a crash undoes is found and repeated."""
    path = layout.blob(finding.outcome.digest)
    with store_faults("set aside the corrupt blob", path):
        try:
            only = None if finding.blob is None else finding.blob.signature
            kept_at = quarantine(layout, path, "corrupt-blob", only=only)
        except FileNotFoundError:
            return None
    with suppress(OSError):
        durable.sync_directory(layout.quarantine_dir)
        durable.sync_directory(os.path.dirname(path))
        os.rmdir(os.path.dirname(path))
    return kept_at


def _sizes(entries: Iterable[Entry]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for entry in entries:
        sizes.update(entry.sizes())
    return sizes


def _judged(entry: Entry, findings: dict[Digest, Finding]) -> Verified:
    look, manifest = entry.look(), entry.manifest
    if manifest is None:
        return Verified(name=entry.name.text, ok=False, expected="", actual=None, files=0, reason=look.reason)
    named = manifest.blobs()
    bad = (findings[digest] for digest in named if findings[digest].fault is not None)
    first = next(bad, findings[manifest.digest])
    return Verified(
        name=manifest.name,
        ok=first.fault is None and look.has_bytes,
        expected=first.outcome.digest.text,
        actual=None if first.outcome.actual is None else first.outcome.actual.text,
        size_bytes=sum(entry.sizes().values()),
        files=max(1, len(manifest.files)),
        reason=first.fault or look.reason or None,
        quarantine_path=first.kept_at,
    )


def _verification(models: list[Verified], size: int) -> Verification:
    bad = [model for model in models if not model.ok]
    shown = models if len(models) <= SHOWN else [*bad, *(model for model in models if model.ok)][:SHOWN]
    return Verification(models=tuple(shown), ok=not bad, checked=len(models), failed=len(bad), size_bytes=size)
