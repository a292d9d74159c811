"""Bytes that come from elsewhere: whether they are here already, and a name for those that are complete.

Whoever fetches has each file committed as a blob as soon as it is verified. So a model of many files that is given up
halfway has brought something, and two models that share a file share its transfer. Blobs without a name are no model:
the manifest comes last, in the publisher's turn, as for everything else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import anyio

from modeld.inspect.formats import HEAD_BYTES, detect_format
from modeld.progress import FileProgress
from modeld.store import parts
from modeld.store.blobs import blobs
from modeld.store.blobs.blobs import Blob, Trusted
from modeld.store.catalog.history import Asker, History
from modeld.store.digest import Digest
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.ingest.adding import Intake, Vanished, still_there
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.manifests import File, taken
from modeld.store.manifests.trees import Relinked
from modeld.store.names import ModelName
from modeld.store.publish.publishing import Wish, judge
from modelwire.errors import Corrupt
from modelwire.values import Added

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """One file of a model, complete and verified."""

    path: str
    blob: Blob
    role: str | None = None
    fetched: bool = False
    """Its bytes were not here before."""

    served: Mapping[str, int] = field(default_factory=dict)
    """Which source gave how many of them."""


class Arrivals:
    def __init__(self, intake: Intake, history: History) -> None:
        self._intake = intake
        self._history = history

    @property
    def layout(self) -> Layout:
        return self._intake.counter.layout

    @property
    def space(self) -> Space:
        return self._intake.space

    @property
    def keep_cache(self) -> bool:
        return self._intake.keep_cache

    # -- blobs

    def relying_on(self, digest: Digest) -> AbstractContextManager[None]:
        """No sweep takes this blob meanwhile."""
        return self._intake.holds.relying_on(digest)

    async def find(self, digest: Digest, held: ExitStack, observer: FileProgress) -> Blob | None:
        """The good blob, if it is here: no sweep takes it before `held` is closed, nor what is to become it."""
        held.enter_context(self._intake.holds.relying_on(digest))
        if not os.path.lexists(self.layout.blob(digest)):
            return None
        recorded = await self._intake.records.verified_as(digest)
        return await self._intake.in_thread(
            partial(
                blobs.find_good,
                self.layout,
                digest,
                trusted=lambda blob: blob.signature == recorded,
                observer=observer,
            )
        )

    async def commit(self, digest: Digest, commit: Callable[[Trusted], tuple[Blob, bool]]) -> Blob:
        """Names bytes that were verified just now, and notes that they were."""
        recorded = await self._intake.records.verified_as(digest)
        with anyio.CancelScope(shield=True):
            blob, _ = await self._intake.in_thread(lambda: commit(lambda found: found.signature == recorded))
            await self._intake.records.good(blob, None)
        return blob

    # -- names

    def standing(self, name: ModelName) -> Entry | None:
        """What the name stands for now."""
        return self._intake.counter.index.entry(name)

    def judge(self, wish: Wish, digest: Digest | None, files: Sequence[File] = ()) -> bool:
        """Whether the name says already what is wished; raises when it must not be given."""
        return judge(self.standing(wish.name), wish, digest, files)

    def judge_unseen(self, wish: Wish, size: int | None) -> None:
        """The same for bytes of an unknown digest: other bytes, when they have another size."""
        standing = self.standing(wish.name)
        judge(standing, wish, None)
        if standing is None or wish.replace or standing.manifest is None or size is None:
            return
        if standing.manifest.total_bytes != size:
            fault = taken(wish.name)
            fault.details.update(existing=standing.manifest.digest.text)
            raise fault

    async def publish(
        self, wish: Wish, arrived: Sequence[Arrived], source: Mapping[str, str], asker: Asker, told_source: str | None
    ) -> Added:
        """One file is a model by itself; several are one with a tree. Without `told_source` nothing has arrived."""
        first = arrived[first_of(arrived)]
        files = files_of(arrived)
        trees = self._intake.counter.index.trees
        relinked: list[Relinked] = []

        def commit() -> tuple[Blob, bool]:
            # In the publisher's turn: somebody outside may have taken a blob away since.
            for each in arrived:
                still_there(self.layout, each.blob)
            if files:
                _, changed = trees.ensure(wish.name, files)
                relinked.extend(changed)
                wish.observer.advance(committed=sum(each.blob.size for each in arrived if each.fetched))
            return first.blob, not any(each.fetched for each in arrived)

        shown = await self._intake.in_thread(partial(self._format, first))
        try:
            added, _ = await self._intake.counter.publish(
                wish,
                first.blob.digest,
                commit,
                format=shown,
                source=source,
                files=files,
                path=trees.path(wish.name, files) if files else None,
            )
        except Vanished:
            raise Corrupt(
                f"a blob of '{wish.name.text}' disappeared from the store, or changed, before it got its name",
                hint="pull it again; find the program that changes blobs of this store",
                retryable=True,
            ) from None
        with anyio.CancelScope(shield=True):
            await self._intake.records.relinked(relinked)
            if told_source is not None:
                served = {each.blob.digest.text: each.served for each in arrived if each.served}
                await self._history.arrived(added, told_source, asker, served)
        return added

    def _format(self, first: Arrived) -> str:
        with store_faults("read", first.blob.path):
            descriptor = os.open(first.blob.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                return detect_format(os.pread(descriptor, HEAD_BYTES, 0), first.path)
            finally:
                os.close(descriptor)


def first_of(arrived: Sequence[Arrived]) -> int:
    """Which file stands for the model."""
    return parts.first_weights([(each.path, each.role or "", each.blob.size) for each in arrived])


def files_of(arrived: Sequence[Arrived]) -> list[File]:
    """As the manifest has them: none for a model of one file."""
    if len(arrived) == 1:
        return []
    return [
        File(
            path=each.path,
            blob=each.blob.digest.text,
            size_bytes=each.blob.size,
            role=each.role or parts.role_of(each.path),
        )
        for each in arrived
    ]
