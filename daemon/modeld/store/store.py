"""The store for the rest of the daemon: open, add, resolve, usage, close, and the parts that do other work."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Final, Unpack

import anyio
import anyio.to_thread

from modeld.config import ScrubSettings, StoreSettings
from modeld.config.settings import default_byte_jobs
from modeld.progress import JobProgress
from modeld.signatures.rules import Rules
from modeld.store.blobs.background import Background
from modeld.store.blobs.linked import Linked
from modeld.store.blobs.quarantine import kept
from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.facts import Facts
from modeld.store.catalog.history import THE_DAEMON, History, Requester
from modeld.store.catalog.left_files import LeftFiles
from modeld.store.catalog.records import Records
from modeld.store.catalog.scrubs import Scrubs
from modeld.store.catalog.unnamed import Unnamed
from modeld.store.catalog.updates import Updates
from modeld.store.catalog.uses import Uses
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import StoreLock
from modeld.store.disk.reserve import Reserve
from modeld.store.disk.root import prepare_root
from modeld.store.disk.space import Space, free_bytes_under
from modeld.store.disk.user_space import UserSpaces
from modeld.store.ingest.adding import add_local
from modeld.store.ingest.adopt import How
from modeld.store.ingest.collect import Collection, collect
from modeld.store.ingest.ingest import Ingest
from modeld.store.ingest.readers import Reader
from modeld.store.ingest.site_copy import copy_from_site
from modeld.store.maintain.automatic import AutomaticSweep
from modeld.store.maintain.checking import Checker
from modeld.store.maintain.evict import Evictor
from modeld.store.maintain.recover import RecoveryReport, recover
from modeld.store.maintain.resolving import Resolver
from modeld.store.maintain.scrub import Scrubber
from modeld.store.maintain.signed import SignatureVerifier
from modeld.store.maintain.sweep import Sweeper
from modeld.store.maintain.usage import usage
from modeld.store.maintain.used_bytes import UsedBytes
from modeld.store.maintain.verify import Verifier
from modeld.store.manifests.index import Index
from modeld.store.manifests.models import Models
from modeld.store.manifests.registrations import Registrations
from modeld.store.manifests.sites import Site, Sites
from modeld.store.manifests.trees import Trees
from modeld.store.moving.mover import Mover
from modeld.store.names import ModelName
from modeld.store.publish.holds import Holds
from modeld.store.publish.leases import Leases
from modeld.store.publish.name_changes import Notes, Terms
from modeld.store.publish.name_locks import NameLocks
from modeld.store.publish.pinning import Pinning
from modeld.store.publish.planned_changes import PlannedChanges
from modeld.store.publish.pointing import Pointing
from modeld.store.publish.publisher import Publisher
from modeld.store.publish.publishing import FormatRule, Publishing, PublishRequest, PublishTerms
from modeld.store.publish.registering import Registering
from modeld.store.publish.renaming import Renaming
from modelwire.errors import NotFound
from modelwire.values import Added, Copied, QuarantineList, Resolved, Usage

PUBLISH_THREADS: Final = 4
"""One publishes; the others try to take the locks of their names."""

_WALKS: Final = 1
"""One walk over a big store takes a second of the disk and of the interpreter, so walks run one after another."""


_SCRUBS: Final = 1
"""A scrub reads in the background: a second thread would only ask more of the disk."""


class Store:
    """One root, locked by this process. Call it from the event loop's thread.

    Its parts do the work: `models` lists and shows, `resolver` makes paths that take time, `renaming` copies, moves and
    removes names, `pinning` and `leases` keep models, `verifier` and `sweeper` check and remove bytes. Each write first
    checks that the root is still the directory that was locked.
    """

    def __init__(
        self,
        lock: StoreLock,
        ingest: Ingest,
        settings: StoreSettings,
        *,
        uses: Uses,
        left_files: LeftFiles,
        leases: Leases,
        recovery: RecoveryReport,
        scrubber: Scrubber,
        sites: Sites,
        mover: Mover,
        updates: Updates,
    ) -> None:
        publishing, records, history, self.holds = ingest.publishing, ingest.records, ingest.history, ingest.holds
        self.layout = publishing.layout
        self.recovery = recovery
        self.scrubber = scrubber
        self.mover = mover
        self.updates = updates
        self.reserve = Reserve(self.layout)
        self.reserve.refill()
        self.index = publishing.index
        self.history = history
        self.uses = uses
        self.left_files = left_files
        self._lock = lock
        self.ingest = ingest
        self._walks = anyio.CapacityLimiter(_WALKS)
        self.leases = leases
        self.sites = sites
        self.registrations = publishing.registrations
        self.models = Models(
            self.index,
            self.layout,
            records,
            history,
            uses,
            sites,
            ingest.facts,
            registrations=self.registrations,
            seen=leases.seen,
        )
        self.registering = Registering(publishing, self.registrations, lock, history)
        grace, by_itself = float(settings.grace), settings.sweep == "auto"
        sweep_after = grace if by_itself else None
        changes = PlannedChanges(publishing, lock, self.holds, records, history)
        self.renaming = Renaming(publishing, changes, self.holds, uses, history, sweep_after=sweep_after)
        self.pointing = Pointing(publishing, changes, self.renaming)
        self.pinning = Pinning(publishing, changes)
        self.sweeper = Sweeper(
            publishing,
            lock,
            records,
            self.holds,
            grace,
            at_sites={site.index.trees.top: site.index for site in sites.sites},
        )
        self.automatic_sweep = AutomaticSweep(self.sweeper, publishing.unnamed, grace, on=by_itself)
        self.evict = settings.evict == "auto"
        """Whether the daemon removes models when a job needs room."""
        self.evictor = Evictor(
            publishing, self.renaming, self.sweeper, space=ingest.space, uses=uses, holds=self.holds, grace=grace
        )
        checker = Checker(publishing, records, history, ingest.threads)
        self.verifier = Verifier(checker, lock, self.holds)
        self.signatures = SignatureVerifier(checker, self.verifier, self.holds)
        self.resolver = Resolver(publishing, records, uses, self.verifier, self.holds, sites)

    @classmethod
    def claim(cls, root: str, settings: StoreSettings, *, endpoint: str | None = None) -> tuple[Layout, StoreLock]:
        """Prepares and locks the root. The caller opens the catalogue afterwards."""
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
        scrub: ScrubSettings | None = None,
        rules: Rules | None = None,
    ) -> Store:
        """Blocks until recovered. `lock` comes from `claim`; without it the store is claimed here. `rules` say which
        models need a signature. The caller closes the store, and the catalogue too."""
        if lock is None:
            _, lock = cls.claim(root, settings)
        layout = lock.layout
        try:
            history = History(catalog)
            linked = Linked(layout)
            linked.load()
            records = Records(catalog)
            index = Index(layout, history.reason_at, Trees(layout, linked), records, check_root=lock.check_root)
            sites = Sites(index, layout.root, [Site(site.path, layout) for site in settings.site])
            registrations = Registrations(layout)
            registrations.load()
            publish_threads = anyio.CapacityLimiter(PUBLISH_THREADS)
            publishing = Publishing(
                layout=layout,
                index=index,
                publisher=Publisher(),
                locks=NameLocks(layout, float(settings.lock_wait), publish_threads),
                threads=publish_threads,
                unnamed=Unnamed(catalog),
                registrations=registrations,
            )
            left_files = LeftFiles(catalog, layout.root)
            space = Space(
                partial(free_bytes_under, layout.root),
                min_free=settings.min_free,
                max_bytes=settings.max_bytes,
                used=None if settings.max_bytes is None else UsedBytes(layout),
            )
            threads = anyio.CapacityLimiter(byte_threads or default_byte_jobs())
            ingest = Ingest(
                publishing=publishing,
                records=records,
                history=history,
                facts=Facts(catalog),
                space=space,
                user_spaces=UserSpaces(space, left_files, percent=settings.unfinished_percent),
                holds=Holds(),
                threads=threads,
                keep_cache=settings.keep_cache,
                sites=sites,
                rules=rules or Rules(),
            )
            uses = Uses(catalog)
            return cls(
                lock,
                ingest,
                settings,
                uses=uses,
                left_files=left_files,
                leases=Leases(publishing, ingest.holds, catalog, used=uses.note),
                recovery=recover(layout, index),
                sites=sites,
                mover=Mover(publishing, lock, records, catalog, settings),
                updates=Updates(catalog),
                scrubber=Scrubber(
                    Checker(publishing, records, history, anyio.CapacityLimiter(_SCRUBS)),
                    Scrubs(catalog),
                    lock,
                    ingest.holds,
                    Background((scrub or ScrubSettings()).rate),
                    full_every=(scrub or ScrubSettings()).full_every,
                ),
            )
        except BaseException:
            lock.close()
            raise

    def use_threads(self, count: int) -> None:
        """At most `count` threads read and write bytes at a time. Running ones are not interrupted."""
        self.ingest.threads.total_tokens = count

    def close(self) -> None:
        """Releases the store's lock, and the watches. Idempotent."""
        self.index.current.close()
        self._lock.close()

    # -- writing

    async def add(
        self,
        path: str,
        *,
        name: str | None = None,
        sha256: str | None = None,
        hash_file: bool = False,
        replace: bool = False,
        license: str | None = None,  # noqa: A002 - the field's name
        formats: FormatRule = "usual",
        how: How = "copy",
        order: int = 0,
        progress: JobProgress | None = None,
        reader: Reader | None = None,
        notes: Notes[Added] | None = None,
        requester: Requester = THE_DAEMON,
        signature: bytes | None = None,
        **terms: Unpack[PublishTerms],
    ) -> Added:
        """Adds a local file, set of shards or directory under a name. Returns when the model is complete, verified and
        durable, and, after a move, the source is gone.

        The same content under the same name again is success. `progress.stopped` ends the work at the next chunk,
        with `Stopped`; once the publication has begun it is finished. `signature` is for the rules.
        """
        request = PublishRequest(
            name=ModelName.suggest(path) if name is None else ModelName.parse(name),
            expected=None if sha256 is None else Digest.parse(sha256),
            hash_file=hash_file,
            replace=replace,
            license=license,
            formats=formats,
            order=order,
            progress=progress or JobProgress(),
            notes=notes,
            provenance=path,
            requester=requester,
            **terms,
        )
        reader = reader or Reader()

        def begin() -> Collection:
            self._lock.check()
            return collect(path, how, reader, self.layout)

        collection = await self.ingest.in_thread(begin)
        try:
            return await add_local(self.ingest, request, collection, signature)
        finally:
            collection.close()

    async def copy(
        self, source: str, destination: str, *, link: bool, progress: JobProgress, **terms: Unpack[Terms[Copied]]
    ) -> Copied:
        """Gives a model a second name. One of a site is copied into the store, or linked."""
        site = await self._site_with(source)
        if site is None:
            return await self.renaming.copy(source, destination, **terms)
        return await copy_from_site(
            self.ingest, self.renaming, site, source, destination, link=link, progress=progress, **terms
        )

    async def plan_copy(self, source: str, destination: str, requester: Requester) -> Copied:
        """The result that `copy` would return; raises what it would raise."""
        site = await self._site_with(source)
        if site is None:
            return await self.index.in_thread(partial(self.renaming.plan_copy, source, destination, requester))
        found = await site.look(partial(site.index.find_with_document, source))
        return await site.in_time(partial(self.renaming.plan_copy, source, destination, requester, found))

    async def _site_with(self, source: str) -> Site | None:
        """The site that has the model, when the store itself has not. That nobody has it is for the change of the name
        to say, which may have taken place before the model was removed."""
        with suppress(NotFound):
            if self.sites.sites:
                return self.sites.of(await self.sites.find(source))
        return None

    async def prune(self, before: float) -> None:
        """Forgets what was found before that moment in blobs that no model names any more, and the uses of models that
        are gone. While a manifest cannot be used, its blobs are not known, and nothing is forgotten; nor are uses while
        the models of a site are not known."""
        digests: set[str] = set()
        names: set[str] = set()
        keys: set[str] = set()
        async for entry in self.index.entries():
            if entry.manifest is None:
                return
            names.add(entry.name.text)
            keys.add(entry.name.key)
            digests.update(digest.hex for digest in entry.manifest.blobs())
        await self.history.prune(before, digests, keys)
        await self.ingest.facts.prune(digests)
        seen = [site.index.last_names for site in self.sites.sites]
        if None not in seen:
            self.uses.prune(names.union(*filter(None, seen)))

    # -- reading, without waiting for jobs

    def known(self, name: str) -> Resolved | None:
        """The path behind a name, if it is known to be good without a look at the disk."""
        resolved = self.index.current.answer(name)
        if resolved is not None:
            self.uses.note(resolved.name)
            return self.leases.resolved(resolved)
        return None

    async def look_up(self, name: str, file: str | None = None) -> Resolved:
        """The path behind a name, or of one file of that model, after a look in a thread. `WouldBlock` when the caller
        must ask `resolver`."""
        resolved = await self.sites.look_up(name, file)
        self.uses.note(resolved.name)
        return self.leases.resolved(resolved)

    async def usage(self) -> Usage:
        return await usage(self.layout, self.index, self._walks)

    async def quarantined(self) -> QuarantineList:
        return await anyio.to_thread.run_sync(partial(kept, self.layout), limiter=self._walks)

    @property
    def free_bytes(self) -> int:
        return free_bytes_under(self.layout.root)

    @property
    def reserved_bytes(self) -> int:
        """Reserved for running jobs and not written yet."""
        return self.ingest.space.promised
