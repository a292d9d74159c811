"""The store as the rest of the daemon sees it: open, add, list, show, resolve, close."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from modeld.config import StoreSettings
from modeld.config.settings import default_byte_jobs
from modeld.progress import JobProgress
from modeld.store.blobs.linked import Linked
from modeld.store.catalog.history import NOBODY, Asker, History
from modeld.store.catalog.uses import Uses
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import StoreLock
from modeld.store.disk.reserve import Reserve
from modeld.store.disk.root import prepare_root
from modeld.store.disk.space import Space, free_bytes_under
from modeld.store.disk.used import UsedBytes
from modeld.store.ingest.adding import Intake
from modeld.store.ingest.adopt import How
from modeld.store.ingest.collect import collect
from modeld.store.ingest.downloaded import Arrivals
from modeld.store.ingest.gathering import add_collection
from modeld.store.ingest.readers import OwnReader, Reader
from modeld.store.maintain.care import Care, nobody_is_told
from modeld.store.maintain.proving import Proving
from modeld.store.maintain.recover import RecoveryReport, recover
from modeld.store.maintain.verify import Failed
from modeld.store.manifests.index import Index
from modeld.store.manifests.trees import Trees
from modeld.store.names import ModelName
from modeld.store.publish.publisher import Publisher
from modeld.store.publish.publishing import Counter, Notes, Wish
from modeld.store.publish.records import Records
from modelwire.errors import WireError
from modelwire.values import Added, ModelView, Resolved

if TYPE_CHECKING:
    from modeld.store.catalog.catalog import Catalog

PUBLISH_THREADS: Final = 4
"""One publishes, the others ask for the locks of their names."""


class Store:
    """One root, held by this process alone. All calls from the event loop's thread."""

    def __init__(self, lock: StoreLock, intake: Intake, care: Care, recovery: RecoveryReport) -> None:
        self.layout = intake.counter.layout
        self.care = care
        self.recovery = recovery
        self.reserve = Reserve(self.layout)
        self.reserve.refill()
        self._lock = lock
        self._index = intake.counter.index
        self._intake = intake
        self.arrivals = Arrivals(intake, care.history)
        self._proving = Proving(intake.counter, intake.records, care)

    @classmethod
    def claim(cls, root: str, settings: StoreSettings, *, endpoint: str | None = None) -> tuple[Layout, StoreLock]:
        """The root made ready and locked: what has to come before the catalogue is opened."""
        layout = prepare_root(root, group=settings.group)
        return layout, StoreLock.take(layout, endpoint=endpoint)

    @classmethod
    def open(
        cls,
        root: str,
        settings: StoreSettings,
        catalog: Catalog | None = None,
        *,
        lock: StoreLock | None = None,
        byte_threads: int | None = None,
    ) -> Store:
        """Blocks until recovered. `lock` comes from `claim`; without it the store is claimed here. Whoever opens
        the store closes it; the catalogue stays the caller's."""
        if lock is None:
            _, lock = cls.claim(root, settings)
        layout = lock.layout
        try:
            history = History(catalog)
            linked = Linked(layout)
            linked.load()
            index = Index(layout, history.reason_at, Trees(layout, linked))
            counter = Counter(
                layout=layout,
                index=index,
                publisher=Publisher(),
                threads=anyio.CapacityLimiter(PUBLISH_THREADS),
                lock_seconds=float(settings.lock_wait),
            )
            space = Space(
                partial(free_bytes_under, layout.root),
                min_free=settings.min_free,
                max_bytes=settings.max_bytes,
                used=None if settings.max_bytes is None else UsedBytes(layout),
            )
            records, threads = Records(catalog), anyio.CapacityLimiter(byte_threads or default_byte_jobs())
            care = Care(lock, counter, records, history, threads, float(settings.grace), Uses(catalog))
            intake = Intake(
                counter=counter,
                records=records,
                space=space,
                holds=care.holds,
                threads=threads,
                keep_cache=settings.keep_cache,
            )
            return cls(lock, intake, care, recover(layout, index))
        except BaseException:
            lock.close()
            raise

    def use_threads(self, count: int) -> None:
        """So many read and write bytes at the same time; those that do end in peace."""
        self._intake.threads.total_tokens = count

    def close(self) -> None:
        """Gives the store back to whoever wants it next. Idempotent."""
        self._lock.close()

    # -- writing

    async def add(
        self,
        path: str,
        *,
        name: str | None = None,
        sha256: str | None = None,
        replace: bool = False,
        license: str | None = None,  # noqa: A002 - the field's name
        how: How = "copy",
        order: int = 0,
        observer: JobProgress | None = None,
        reader: Reader | None = None,
        notes: Notes[Added] | None = None,
        asker: Asker = NOBODY,
    ) -> Added:
        """A local file, set of shards or directory under a name. Returns when the model is complete, verified and
        durable, and, after a move, the source is gone.

        The same content under the same name again is success. `observer.stopped` ends the work at the next chunk,
        with `Stopped`; once the publication has begun it is finished.
        """
        wish = Wish(
            name=ModelName.suggest(path) if name is None else ModelName.parse(name),
            expected=None if sha256 is None else Digest.parse(sha256),
            replace=replace,
            license=license,
            order=order,
            observer=observer or JobProgress(),
            notes=notes,
        )
        self._lock.check()
        reader = reader or OwnReader()
        collection = await self._intake.in_thread(partial(collect, path, how, reader, self.layout))
        if collection is None:
            added = await self._intake.add(wish, path, reader.open)
        else:
            try:
                added = await add_collection(self._intake, wish, collection, how)
            finally:
                collection.close()
        await self.care.history.arrived(added, path, asker)
        return added

    # -- reading: synchronous, past any queue

    def resolve(self, name: str, file: str | None = None) -> Resolved:
        """The path behind a name, or of one file of that model. `Unproven` when it has to be looked at first."""
        resolved = self._index.resolve(name) if file is None else self._index.resolve_file(name, file)
        self.care.uses.note(resolved.name)
        return resolved

    async def proven(
        self, name: str, file: str | None = None, *, asker: Asker = NOBODY, failed: Failed = nobody_is_told
    ) -> Resolved:
        """As `resolve`, with all the time that a closer look takes."""
        resolved = await self._proving.resolve(name, file, asker=asker, failed=failed)
        self.care.uses.note(resolved.name)
        return resolved

    def show(self, name: str) -> ModelView:
        """All about one model, with its manifest as it is in the file."""
        entry = self._index.find(name)
        return msgspec.structs.replace(entry.view(), manifest=entry.document())

    def published(self, added: Added) -> bool:
        """Whether the name stands for exactly this content now: what a restart asks about a job cut short."""
        try:
            entry = self._index.entry(ModelName.parse(added.name))
            if entry is None or entry.missing() is not None:
                return False
            manifest = entry.usable()
            files = {(file.path, file.blob) for file in manifest.files}
            return manifest.blob == added.blob and files == {(file.path, file.blob) for file in added.files}
        except WireError:
            return False

    def count(self) -> int:
        return len(self._index.names())

    @property
    def free_bytes(self) -> int:
        return free_bytes_under(self.layout.root)

    @property
    def reserved_bytes(self) -> int:
        """Promised to running jobs and not written yet."""
        return self._intake.space.promised
