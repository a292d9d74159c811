"""Moves the whole store to another directory, most often on another filesystem, while it serves.

Blobs never change, so they are copied while everything goes on, again and again until little is missing. Then the
mover is alone: no job runs and nobody publishes, but readers get their answers. The rest is copied, the catalogue goes
on in a copy of its file, and the path of the store leads to the new directory in one step. Before that step the old
directory is the store and the new one is marked as unfinished; after it the new one is whole. The old one stays until
it is dropped.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from modeld.config import StoreSettings
from modeld.progress import JobProgress, check
from modeld.store.catalog import copies, records
from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.catalog_file import copy_to
from modeld.store.catalog.copies import Copies
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable, former
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import NameLock, StoreLock, name_holder
from modeld.store.disk.reserve import Reserve
from modeld.store.disk.space import Allotment
from modeld.store.moving.blob_copies import BlobCopies
from modeld.store.moving.former_store import drop_former
from modeld.store.moving.other_files import Changed, OtherFiles
from modeld.store.moving.target import Target, claim, note_former, real_path
from modeld.store.publish.name_changes import NameChanges, Notes, announced
from modelwire.errors import Corrupt, Interrupted, InUse, Unsupported
from modelwire.values import Relocated

T = TypeVar("T")

LITTLE_BYTES: Final = 4 << 30
"""What may be missing when the mover begins to be alone: some seconds of copying."""

_PASSES: Final = 20
"""Of copying beside other work; a store that grows faster than it is copied has to wait in the end. Alone too, beside
other programs."""

_LOCK_LOOK_SECONDS: Final = 0.25

_SHOWN: Final = 10
"""Names of models in one note."""

_GOES_ON: Final = "The store stays in {here}; what was copied to {there} is kept, and the same command goes on with it."


class Mover:
    """For the event loop; one thread copies."""

    def __init__(
        self,
        name_changes: NameChanges,
        lock: StoreLock,
        known: records.Records,
        catalog: Catalog | None,
        settings: StoreSettings,
    ) -> None:
        self._name_changes = name_changes
        self._layout = name_changes.layout
        self._lock = lock
        self._records = known
        self._catalog = catalog
        self._copies = Copies(catalog)
        self._settings = settings
        self._thread = anyio.CapacityLimiter(1)
        self._busy = False
        self.former = self._former()
        """The directories that the store was in before, as far as they are not dropped."""

    async def move(
        self,
        path: str,
        *,
        alone: Callable[[], AbstractAsyncContextManager[None]],
        order: int,
        progress: JobProgress,
        notes: Notes[Relocated] | None = None,
        accepted_at: float | None = None,
    ) -> Relocated:
        """Raises Stopped, or why the store cannot move; the next call goes on. Within `alone` no other job runs."""
        if self._catalog is None:
            raise Unsupported("a store without a catalogue cannot move")
        with self._only():
            progress.phase("checking_local")
            await self._run(self._lock.check)
            if (there := await self._run(partial(self._moved_before, path))) is not None:
                return there
            await self._run(partial(self._refuse_put_back, accepted_at or time.time()))
            group, sites = self._settings.group, [site.path for site in self._settings.site]
            target = await self._run(partial(claim, self._lock, path, group=group, sites=sites))
            try:
                return await self._move(target, alone, order, progress, notes, self._catalog)
            finally:
                target.lock.close()

    def check_idle(self) -> None:
        """InUse while the store is moved, or its former directory removed. A removal that waited for the end of a move
        would take the directory that the store has just left."""
        if self._busy:
            raise InUse(
                "the store is being moved already, or its former directory removed",
                hint="`modelctl jobs` shows by which job.",
            )

    @contextlib.contextmanager
    def _only(self) -> Iterator[None]:
        self.check_idle()
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    async def _move(
        self,
        target: Target,
        alone: Callable[[], AbstractAsyncContextManager[None]],
        order: int,
        progress: JobProgress,
        notes: Notes[Relocated] | None,
        catalog: Catalog,
    ) -> Relocated:
        new = target.layout
        known = await self._copies.load(new.root)
        blob_copies = BlobCopies(self._layout, new, known, min_free=int(self._settings.min_free))
        rest = OtherFiles(self._layout, new, blob_copies, progress.stopped)
        progress.phase("copy")
        for _ in range(_PASSES):
            copied = await self._copy_missing(blob_copies, new, progress)
            await self._models_without_bytes(blob_copies)  # what is damaged now is no better when others wait
            if copied <= LITTLE_BYTES:
                break
        await self._run(rest.copy_ahead)
        async with alone():
            for _ in range(_PASSES):
                await self._until_names_are_free(progress)
                with contextlib.suppress(Changed):
                    async with self._name_changes.publisher.turn(order):
                        return await self._move_now(target, blob_copies, rest, progress, notes, catalog)
        raise InUse(
            "other programs change models all the time",
            hint=f"Move again when they have finished. {self._goes_on()}",
            retryable=True,
        )

    async def _move_now(
        self,
        target: Target,
        blob_copies: BlobCopies,
        rest: OtherFiles,
        progress: JobProgress,
        notes: Notes[Relocated] | None,
        catalog: Catalog,
    ) -> Relocated:
        """Raises Changed when another program has changed a model meanwhile."""
        new = target.layout
        progress.phase("copy")
        await self._copy_missing(blob_copies, new, progress)
        notes_on_models = await self._models_without_bytes(blob_copies)
        await self._run(rest.copy)
        await self._run(partial(note_former, target, self._layout))
        progress.phase("publish")
        if await self._run(partial(_held_name, self._layout)) is not None:
            raise Changed
        moved = Relocated(
            store=self._layout.root,
            path=new.root,
            former=target.switch.former,
            models=self._name_changes.index.count,
            blobs=len(blob_copies.good),
            size_bytes=blob_copies.size,
            notes=notes_on_models,
        )
        check(progress)
        with anyio.CancelScope(shield=True):
            async with announced(notes, moved):
                await self._switch(target, blob_copies, rest, catalog)
        return moved

    async def _copy_missing(self, blob_copies: BlobCopies, new: Layout, progress: JobProgress) -> int:
        """Returns how many bytes it has copied."""
        await self._run(self._lock.check)
        copied = 0
        missing = await self._run(partial(blob_copies.missing, progress.stopped))
        progress.total(blob_copies.size)
        here = blob_copies.size - missing.size - progress.done
        progress.advance(done=here, kept=here)
        with await self._run(partial(blob_copies.reserve, missing)) as reserved:
            space = Allotment(reserved)
            for batch in missing.batches:
                check(progress)
                made = await self._run(partial(blob_copies.copy, batch, space, progress))
                await self._copies.note(new.root, made)
                copied += sum(signature.size for signature in made.values())
        return copied

    async def _until_names_are_free(self, progress: JobProgress) -> None:
        """Another program that writes a model has its name's lock, and would go on with it in the old directory."""
        deadline = time.monotonic() + float(self._settings.lock_wait)
        while (held := await self._run(partial(_held_name, self._layout))) is not None:
            if time.monotonic() > deadline:
                raise InUse(
                    f"{await self._run(partial(name_holder, held))} writes a model, and has the lock {held}",
                    hint=f"Move again when it has finished. {self._goes_on()}",
                    retryable=True,
                    details={"lock": held},
                )
            check(progress)
            await anyio.sleep(_LOCK_LOOK_SECONDS)

    async def _models_without_bytes(self, blob_copies: BlobCopies) -> tuple[str, ...]:
        """A note on models whose blobs were missing before. Raises Corrupt when a blob that a model names is there and
        cannot be copied; what no model names may stay behind."""
        damaged: dict[str, str] = {}
        missing: list[str] = []
        async for entry in self._name_changes.index.entries():
            for blob in entry.blobs:
                if blob.digest in blob_copies.faults:
                    damaged[entry.name.text] = blob_copies.faults[blob.digest]
                elif blob.digest not in blob_copies.good and entry.name.text not in missing[-1:]:
                    missing.append(entry.name.text)
        if damaged:
            name, why = next(iter(damaged.items()))
            more = f" (and {len(damaged) - 1} more models)" if len(damaged) > 1 else ""
            raise Corrupt(
                f"'{name}'{more} cannot be copied: {why}",
                hint=f"Run `modelctl verify {name}`, then repair or remove it, and move again. {self._goes_on()}",
                details={"models": sorted(damaged)},
            )
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        return (f"without bytes before the move already: {', '.join(missing[:_SHOWN])}{more}",) if missing else ()

    async def _switch(self, target: Target, blob_copies: BlobCopies, rest: OtherFiles, catalog: Catalog) -> None:
        new, index = target.layout, self._name_changes.index
        copy = partial(copy_to, path=new.catalog_path, finish=partial(_complete, good=blob_copies.good))

        def switch() -> None:
            self._lock.check_root()
            target.lock.check()
            rest.check_unchanged()
            target.switch.carry_out()

        await self._run(partial(self._records.expect, blob_copies.good))
        self._lock.expect(target.lock)
        try:
            await catalog.move(copy, switch)
        finally:
            if await self._run(partial(self.took_place, new.root)):
                # ---- The store is in the new directory: from here on nothing is undone. ----
                self._lock.become(target.lock)
                await self._run(self._records.become)
                index.trees.linked.forget_all()
                await self._run(index.current.look_again)
                index.forget()
                await self._run(partial(_settle, target))
                self.former = await self._run(self._former)
            else:
                self._lock.expect(None)
                self._records.forget_copies()

    async def drop(self, progress: JobProgress) -> Relocated:
        """Removes the directory that the store was in before. Raises Stopped."""
        progress.phase("checking_local")
        with self._only():
            dropped = await self._run(partial(drop_former, self._layout, progress))
        self.former = ()
        path = await self._run(partial(os.path.realpath, self._layout.root))
        return Relocated(
            store=self._layout.root,
            path=path,
            former=dropped.path,
            blobs=dropped.blobs,
            freed_bytes=dropped.freed,
            notes=dropped.notes,
        )

    def _moved_before(self, path: str) -> Relocated | None:
        """Blocks. The same request again is success, and makes sure that the move lasts."""
        note = former.former(self._layout)
        if note is None or note.former is None or not self.took_place(path):
            return None
        with store_faults("sync the directory of", self._layout.root):
            durable.sync_directory(os.path.dirname(self._layout.root))
        models = self._name_changes.index.count
        return Relocated(store=self._layout.root, path=real_path(path), former=note.former, models=models)

    def _former(self) -> tuple[str, ...]:
        note = former.former(self._layout)
        return () if note is None else tuple(place.path for place in note.places)

    def _refuse_put_back(self, accepted_at: float) -> None:
        """The catalogue of a former directory knows the job as one that has not ended."""
        left = former.left_for(self._layout)
        if left is not None and accepted_at <= left[1]:
            raise Interrupted(
                f"the store moved to {left[0]} after this was accepted, and its former directory was put back since",
                hint=f"Ask for the move again if it is still wanted. What {left[0]} has is not changed.",
            )

    def took_place(self, path: str) -> bool:
        """Blocks. Whether the store is in that directory now."""
        return os.path.realpath(self._layout.root) == real_path(path)

    def _goes_on(self) -> str:
        return _GOES_ON.format(here=self._layout.root, there="the new directory")

    async def _run(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._thread)


def _settle(target: Target) -> None:
    """What fails here is done at the next start, or was only a help."""
    with contextlib.suppress(OSError):
        former.settle(target.layout)
    with contextlib.suppress(OSError):
        Reserve(target.layout).refill()
    with contextlib.suppress(OSError):
        former.note_left(Layout(target.switch.former), target.layout.root)


def _held_name(layout: Layout) -> str | None:
    """The lock of a name that a program has; None when all of them are free."""
    with store_faults("look at the locks in", layout.locks_dir):
        for name in os.listdir(layout.locks_dir):
            path = f"{layout.locks_dir}/{name}"
            if name.endswith(".lock") and os.path.isfile(path):
                lock = NameLock.take(path)
                if lock is None:
                    return path
                lock.release()
    return None


def _complete(db: sqlite3.Connection, good: Mapping[Digest, Signature]) -> None:
    """What the copy of the catalogue has to say otherwise than the original."""
    records.replace_all(db, good)
    copies.forget_all(db)
