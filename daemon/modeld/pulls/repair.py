"""One repair: a fresh look at the models, then for each blob that is damaged or missing the blocks that are still good,
the others from where they were pulled from, and the blob under its name again.

A damaged blob becomes a download that has most of its bytes: it is shared, resumed, reserved for, limited and committed
as every other. What a repair that ends early has brought is kept; the next one goes on with it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio

from modeld.activity import Activity
from modeld.download.engine.assembly import Fetched
from modeld.download.engine.budget import Pace
from modeld.download.partials.salvage import COPIED, KEPT, Donor, Salvaged, salvage
from modeld.download.routes.events import OnEvent
from modeld.download.routes.router import Route
from modeld.download.source import Source
from modeld.jobs.job import Job
from modeld.progress import FileProgress
from modeld.pulls.context import PullContext
from modeld.pulls.events import PullEvents
from modeld.pulls.places import FileAt, NoMoreBytes, Nowhere, Place, RecordedPlaces, UserOf, Wanted
from modeld.store import Digest, Reader, Requester
from modeld.store.blobs.block_checksums import BLOCK, BlockSums, load_blocks
from modeld.store.blobs.quarantine import kept
from modeld.store.catalog.history import Outcome
from modeld.store.ingest.collect import Collection, Part, collect
from modeld.store.maintain.checking import Finding, Manner, OnFailed
from modeld.store.manifests.entries import Entry
from modelwire.errors import Corrupt, WireError
from modelwire.requests import ModelRepair
from modelwire.values import Repaired, RepairedBlob

RepairJob = Job[ModelRepair, Repaired]

_DONORS: Final = 4
"""Files in quarantine of the right size that are read for one blob: one is the usual case."""

_SHOWN: Final = 5_000
"""Blobs in one answer: 2 MB, where a reply may have 8."""

_MODELS: Final = 10
"""Names of one blob in an answer."""

_LISTED: Final = 100
"""Blobs of each kind in the details of an error."""


@dataclass(slots=True, eq=False)
class _Damaged:
    wanted: Wanted
    finding: Finding
    known: BlockSums | None
    models: list[str]
    """Those that name it."""
    salvaged: Salvaged | None = None
    unasked: WireError | None = None
    """Why a source is not asked."""


class Repair:
    """For the event loop."""

    def __init__(
        self,
        context: PullContext,
        activity: Activity,
        job: RepairJob,
        *,
        requester: Requester,
        user_of: UserOf,
        on_failed: OnFailed,
        reader: Reader | None,
    ) -> None:
        """`user_of` says what the job's user may use of a source. `reader` opens the path of the request."""
        self._context = context
        self._activity = activity
        self._store = context.store
        self._layout = context.store.layout
        self._job = job
        self._progress = job.progress
        self._requester = requester
        self._on_failed = on_failed
        self._reader = reader
        self._events = PullEvents(activity, job, self._layout.root)
        self._in_thread = context.store.ingest.in_thread
        self._route = f"repair {job.id}"
        """No other job asks the same sources with the same blocks at hand."""

        self._recorded = RecordedPlaces(context, user_of)

    async def run(self) -> Repaired:
        request, job = self._job.request, self._job
        look = await self._store.verifier.look(
            None if request.all else request.names,
            Manner(
                quick=True,
                condemns_unreadable=True,
                order=job.order,
                requester=self._requester,
                on_failed=self._on_failed,
            ),
            progress=self._progress,
        )
        damaged = await self._in_thread(partial(self._damaged, look.entries, look.findings))
        job.resumable = request.transfer is None
        collection = await self._in_thread(self._collect) if damaged else None
        try:
            with self._progress.heard_by(self._events.on_progress):
                async with self._context.job_partials.followed(job.id, self._progress):
                    broken = [entry.fault for entry in look.entries if entry.fault is not None]
                    repaired = await self._repair_all(damaged, collection, look.size, broken)
        finally:
            if collection is not None:
                collection.close()
        return Repaired(repaired=tuple(repaired[:_SHOWN]), checked=len(look.entries), size_bytes=look.size)

    async def _repair_all(
        self,
        damaged: Sequence[_Damaged],
        collection: Collection | None,
        looked_at: int,
        broken: Sequence[WireError],
    ) -> list[RepairedBlob]:
        """One after the other: each has all connections. What is lost keeps no other from being repaired. `broken` are
        the faults of manifests that cannot be read."""
        repaired: list[RepairedBlob] = []
        lost = list(broken)
        files = self._progress.files([each.wanted.size for each in damaged], beside=looked_at) if damaged else []
        for each, progress in zip(damaged, files, strict=True):
            try:
                repaired.append(await self._repair(each, collection, progress))
            except WireError as fault:
                lost.append(_lost(each, fault))
                progress.finished()
        if len(lost) == 1 and not repaired:
            raise lost[0]
        if lost:
            raise _several_lost(lost, repaired)
        return repaired

    # -- what is to be repaired

    def _damaged(self, entries: Sequence[Entry], findings: Mapping[Digest, Finding]) -> list[_Damaged]:
        """Blocking."""
        found: dict[Digest, _Damaged] = {}
        for entry in entries:
            if entry.manifest is None:
                continue
            paths = {Digest.parse(file.blob): file.path for file in entry.manifest.files}
            source = entry.manifest.source
            alone = source.filename if source is not None and source.filename else "the file of the model"
            for digest in entry.manifest.blobs():
                finding = findings[digest]
                if finding.fault is None:
                    continue
                if digest not in found:
                    known = load_blocks(self._layout, digest)
                    size = None if known is None else known.size
                    wanted = Wanted(digest, entry.name.text, paths.get(digest, alone), size)
                    found[digest] = _Damaged(wanted, finding, known, [])
                found[digest].models.append(entry.name.text)
        return list(found.values())

    def _collect(self) -> Collection | None:
        path = self._job.request.from_
        return None if path is None or self._reader is None else collect(path, "copy", self._reader, self._layout)

    # -- one blob

    async def _repair(self, damaged: _Damaged, collection: Collection | None, progress: FileProgress) -> RepairedBlob:
        wanted, ingest = damaged.wanted, self._store.ingest
        self._events.path = self._layout.blob(wanted.digest)
        if damaged.finding.outcome.outcome not in ("missing", "corrupt"):
            raise Corrupt(
                damaged.finding.fault or "it cannot be read",
                hint="Look at the kernel's log and the health of the disk.",
            )
        with ExitStack() as held:
            space = ingest.share_of(self._requester)
            here = await ingest.find(wanted.digest, held, progress, self._requester, space)
            if here is not None:  # another job or another tool has brought it
                progress.reuse(here.size)
                progress.finished()
                await self._good_again(damaged, None)
                return _repaired(damaged, here.size, {})
            places, damaged.unasked = await self._recorded.of(wanted.digest, damaged.models)
            share = self._context.transfer.budget.share(priority=self._job.priority)
            with self._job.follows_settings(lambda: share.set_priority(self._job.priority)):
                download = await self._context.shared_downloads.fetch(
                    wanted.digest.text,
                    self._route,
                    partial(self._fetch, damaged, collection, places),
                    progress,
                    self._events.on_transfer_event,
                    share,
                    held,
                )
            progress.finished()
            served = download.fetched.served if download.route == self._route else None
            await self._good_again(damaged, served)
            return _repaired(damaged, download.blob.size, served or {})

    async def _good_again(self, damaged: _Damaged, served: Mapping[str, int] | None) -> None:
        """`served` is None when other work has brought the bytes: the history has that."""
        history, digest = self._store.history, damaged.wanted.digest
        with anyio.CancelScope(shield=True):
            await history.clear_condemned([digest])
            if served is not None:
                self._store.ingest.user_spaces.named(self._layout.blob(digest))
                given = [who for who in served if who not in (KEPT, COPIED)]
                source = ", ".join(given) or (self._job.request.from_ if COPIED in served else None)
                done = Outcome(digest=digest, outcome="repaired", actual=digest, source=source, served=served or None)
                await history.record([done], self._requester)
        for name in damaged.models:
            self._activity.record(
                "model.repaired", job=self._job.id, model=name, peer=self._job.peer, digest=digest.text
            )

    # -- bytes

    def _fetch(
        self,
        damaged: _Damaged,
        collection: Collection | None,
        places: Sequence[Place],
        *,
        progress: FileProgress,
        on_event: OnEvent,
        pace: Pace,
    ) -> Fetched:
        """Blocks until the file is whole, verified and durable."""
        wanted, transfer = damaged.wanted, self._context.transfer
        space = self._store.ingest.share_of(self._requester)
        with ExitStack() as opened:
            donors = list(self._donors(damaged, collection, opened))
            damaged.salvaged = salvage(
                self._layout,
                wanted.digest,
                damaged.known,
                donors,
                keep_incomplete=bool(places),
                space=space,
                holds=self._store.holds,
                progress=progress,
            )
        found = damaged.salvaged
        here: list[Source[None]] = [Nowhere(wanted, found.size)] if found is not None and not found.missing else []
        there: list[Source[None]] = [FileAt(place, wanted) for place in places]
        for tried in (here, there):
            if not tried:
                continue
            described = transfer.router.describe(Route(None, tried), stopped=progress.stopped, on_event=on_event)
            try:
                return transfer.fetch_file(
                    described,
                    described.description.files[0],
                    expected=wanted.digest,
                    space=space,
                    pace=pace,
                    progress=progress,
                    on_event=on_event,
                )
            except NoMoreBytes:  # a copy went bad on the disk
                if not there:
                    raise
        tried_file = "" if collection is None else "what --from names has not the bytes that are missing, and "
        raise damaged.unasked or NoMoreBytes(f"{tried_file}no source is recorded for it")

    def _donors(self, damaged: _Damaged, collection: Collection | None, opened: ExitStack) -> Iterator[Donor]:
        kept_at = damaged.finding.kept_at
        paths = [] if kept_at is None or not os.path.lexists(kept_at) else [kept_at]
        if not paths and damaged.known is not None:  # an add sets bad bytes aside without a word of it
            size = damaged.known.size
            paths = [item.path for item in kept(self._layout).items if item.size_bytes == size][:_DONORS]
        for path in paths:
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                opened.callback(os.close, descriptor)
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    yield Donor(KEPT, descriptor)
        if collection is not None:
            for part in _copies(damaged.wanted, collection.parts):
                descriptor = collection.open(part)
                opened.callback(os.close, descriptor)
                yield Donor(COPIED, descriptor)


def _copies(wanted: Wanted, parts: Sequence[Part]) -> list[Part]:
    """The files that may have the bytes, the likeliest first."""
    if len(parts) == 1:
        return list(parts)
    named = [part for part in parts if part.path == wanted.path]
    return [*named, *(part for part in parts if part.signature.size == wanted.size and part not in named)][:_DONORS]


def _repaired(damaged: _Damaged, size: int, served: Mapping[str, int]) -> RepairedBlob:
    found, blocks = damaged.salvaged, -(-size // BLOCK)
    given = {who: count for who, count in served.items() if who not in (KEPT, COPIED)}
    return RepairedBlob(
        blob=damaged.wanted.digest.text,
        models=tuple(damaged.models[:_MODELS]),
        size_bytes=size,
        blocks=blocks,
        damaged_blocks=blocks if found is None else found.damaged,
        kept_bytes=served.get(KEPT, 0),
        copied_bytes=served.get(COPIED, 0),
        fetched_bytes=sum(given.values()),
        served=given,
    )


def _lost(damaged: _Damaged, fault: WireError) -> WireError:
    """Says what is lost, why, and what to do."""
    wanted, found = damaged.wanted, damaged.salvaged
    what = "its bytes are"
    if found is not None:
        what = f"{found.missing} of its {found.size} bytes ({found.damaged} of {found.blocks} blocks) are"
    elif damaged.known is not None:
        what = f"all of its {damaged.known.size} bytes are"
    error = Corrupt(fault.message) if isinstance(fault, NoMoreBytes) else copy(fault)
    error.message = f"'{wanted.model}' cannot be repaired: {what} lost in {wanted.path}: {fault.message}"
    kept_at = damaged.finding.kept_at
    left = "" if kept_at is None else f" What is left of it is at {kept_at}."
    if fault.hint is None or isinstance(fault, NoMoreBytes):
        error.hint = (
            f"Name a file that has the same bytes with `modelctl repair {wanted.model} --from PATH`, or add or pull the"
            f" model again.{left}"
        )
    error.details = {
        **fault.details,
        "model": wanted.model,
        "file": wanted.path,
        "blob": wanted.digest.text,
        "missing_bytes": None if found is None else found.missing,
    }
    return error


def _several_lost(lost: Sequence[WireError], repaired: Sequence[RepairedBlob]) -> WireError:
    error = copy(lost[0])
    others = f"; {len(lost) - 1} more blobs cannot be repaired" if len(lost) > 1 else ""
    error.message = f"{error.message}{others}; {len(repaired)} were repaired"
    error.details = {
        "lost": [{**each.details, "message": each.message} for each in lost[:_LISTED]],
        "repaired": [each.blob for each in repaired[:_LISTED]],
    }
    return error
