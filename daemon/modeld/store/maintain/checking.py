"""Checks blobs: reads every byte again, several blobs at a time, and takes bad ones out of use.

A full check hashes. A quick one compares the blocks of each blob with their checksums, which costs a fifth and shows
that no bit has rotted, not who wrote them: so it is no verification for the records. Only a hash condemns: a blob whose
blocks differ from their checksums is hashed, and when it is good its checksums were wrong, and are taken anew.

A corrupt blob goes to quarantine in the publisher's turn, after a second look: another program may have put good bytes
there meanwhile. The reason is recorded before the blob is moved, so each model that names it reports the reason, also
after a crash in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from modeld.platform import priority
from modeld.progress import FileProgress, JobProgress, check
from modeld.store.blobs import blobs
from modeld.store.blobs.background import Background
from modeld.store.blobs.blobs import Blob
from modeld.store.blobs.block_checksums import BLOCK, load_blocks, save_blocks
from modeld.store.blobs.quarantine import quarantine
from modeld.store.catalog.history import THE_DAEMON, Condemned, History, Outcome, Requester
from modeld.store.catalog.records import Records
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.publish.name_changes import NameChanges
from modelwire.errors import Corrupt, NotFound, WireError

OnFailed = Callable[[str, Digest, str], None]
"""Called for each model that a corrupt blob has taken out of use: its name, the blob, why."""


def ignore_failed(_name: str, _digest: Digest, _reason: str) -> None:
    pass


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
    bad_disk: bool = False
    """The disk has failed to read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How blobs are checked, and for whom."""

    quick: bool = False
    condemns_unreadable: bool = False
    """Whether a blob that the disk fails to read goes out of use, as a corrupt one does; else it stays, for what a
    loose cable does passes."""

    order: int = 0
    requester: Requester = THE_DAEMON
    on_failed: OnFailed = ignore_failed
    background: Background | None = None
    """Beside all other work, and from the disk; None for as fast as it goes."""


IN_FULL: Final = Manner()
"""By the hash, for the daemon itself."""


class Checker:
    """For the event loop; the bytes are read in `threads`."""

    def __init__(
        self, name_changes: NameChanges, records: Records, history: History, threads: anyio.CapacityLimiter
    ) -> None:
        self.name_changes = name_changes
        self.records = records
        self.history = history
        self.threads = threads

    async def check(self, digests: Sequence[Digest], manner: Manner, progress: JobProgress) -> dict[Digest, Finding]:
        """Reads each of the blobs. The caller holds them."""
        return await _Run(self, manner, progress).check(digests)


class _Run:
    """One running check of many blobs."""

    def __init__(self, checker: Checker, manner: Manner, progress: JobProgress) -> None:
        self._checker = checker
        self._name_changes = checker.name_changes
        self._layout = checker.name_changes.layout
        self._manner = manner
        self._progress = progress
        self._shared = FileProgress(progress)
        self._findings: dict[Digest, Finding] = {}
        self._unwritten: list[Finding] = []
        self._faults: list[Exception] = []

    async def check(self, digests: Sequence[Digest]) -> dict[Digest, Finding]:
        waiting = iter(digests)
        workers = min(len(digests), int(self._checker.threads.total_tokens))
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
            except WireError as fault:
                if self._manner.background is None:
                    self._faults.append(fault)
                    return
                # It would be the first of the next scrub too, and no other blob would ever be read.
                finding = Finding(Outcome(digest=digest, outcome="unreadable"), None, fault.message)
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
                partial(_look_at, self._layout, digest, self._shared, self._manner), limiter=self._checker.threads
            )
            if finding.bad_disk and self._manner.condemns_unreadable:
                finding = replace(finding, outcome=msgspec.structs.replace(finding.outcome, outcome="corrupt"))
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
        known = self._checker.history.why(finding.outcome.digest) if finding.outcome.outcome == "missing" else None
        return finding if known is None else Finding(finding.outcome, None, known.sentence, known.kept_at)

    async def _condemn(self, finding: Finding) -> Finding | None:
        """Takes the blob out of use. Returns None when it has changed since the look."""
        digest, history = finding.outcome.digest, self._checker.history
        reason = finding.fault or "its blob is corrupt"
        async with self._name_changes.publisher.turn(self._manner.order):
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
                await self._checker.records.forget(digest)
                trees = self._name_changes.index.trees
                await self._name_changes.in_thread(partial(trees.linked.forget, digest))
                await self._name_changes.in_thread(partial(trees.replaced, digest))
        self._progress.phase("verify")
        async for entry in self._name_changes.index.entries():
            if entry.manifest is not None and digest in entry.manifest.blobs():
                self._manner.on_failed(entry.name.text, digest, condemned.sentence)
        return Finding(finding.outcome, finding.blob, condemned.sentence, kept_at)

    async def _write_down(self) -> None:
        findings, self._unwritten = self._unwritten, []
        good = [each.blob for each in findings if each.outcome.outcome == "verified" and each.blob is not None]
        await self._checker.records.record_verified(good)
        linked = self._name_changes.index.trees.linked
        for blob in good:
            if linked.signature(blob.digest) not in (None, blob.signature):
                await self._name_changes.in_thread(partial(linked.good, blob.digest, blob.signature))
        await self._checker.history.clear_condemned(blob.digest for blob in good)
        await self._checker.history.record([finding.outcome for finding in findings], self._manner.requester)


def _look_at(layout: Layout, digest: Digest, progress: FileProgress, manner: Manner) -> Finding:
    """Blocking. Raises nothing but `Stopped`: a blob that cannot be read is an outcome too."""
    check(progress)
    path = layout.blob(digest)
    try:
        if blobs.stat_blob(layout, digest) is None:
            return Finding(Outcome(digest=digest, outcome="missing"), None, f"its blob is missing: {path}")
        look = _compared if manner.quick else _hashed
        with nullcontext() if manner.background is None else priority.last_at_disk():
            return look(layout, digest, progress, manner.background)
    except NotFound:
        return Finding(Outcome(digest=digest, outcome="missing"), None, f"its blob is missing: {path}")
    except Corrupt as fault:
        return Finding(Outcome(digest=digest, outcome="corrupt"), None, fault.message)
    except WireError as fault:
        bad_disk = fault.details.get("errno") == "EIO"
        blob = blobs.stat_blob(layout, digest) if bad_disk else None
        return Finding(Outcome(digest=digest, outcome="unreadable"), blob, fault.message, bad_disk=bad_disk)


def _compared(layout: Layout, digest: Digest, progress: FileProgress, background: Background | None) -> Finding:
    known = load_blocks(layout, digest)
    if known is None:
        return _hashed(layout, digest, progress, background)
    compared = blobs.compare_blob(layout, digest, known, progress, background)
    if compared.good:
        return Finding(Outcome(digest=digest, outcome="checked"), compared.blob)
    verified = blobs.verify_blob(layout, digest, progress, sums=True, background=background)
    progress.advance(done=max(0, verified.blob.size - compared.same))
    if verified.good and verified.blocks is not None:
        save_blocks(layout, digest, verified.blocks)
    return _found(verified)


def _hashed(layout: Layout, digest: Digest, progress: FileProgress, background: Background | None) -> Finding:
    """Also gives the blob the checksums that it lacks: those that another tool has named have none."""
    lacks_sums = load_blocks(layout, digest) is None
    verified = blobs.verify_blob(layout, digest, progress, as_done=True, sums=lacks_sums, background=background)
    # Of one block alone they would tell a repair nothing, and many small files take longer to write than to hash.
    if verified.good and verified.blocks is not None and verified.blob.size > BLOCK:
        save_blocks(layout, digest, verified.blocks)
    return _found(verified)


def _found(verified: blobs.Verified) -> Finding:
    digest = verified.blob.digest
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
