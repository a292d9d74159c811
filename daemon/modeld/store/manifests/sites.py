"""Sites: other roots of the same layout, which this daemon only reads.

A name that the own root lacks is looked for there, in the order of the configuration. The disk of a site may be away,
or hang: its looks have threads of their own and a limit in time, and its models are shown as they were last seen, as
unavailable, until it is back. Nothing of it is forgotten or changed meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import anyio

from modeld.config import ConfigError
from modeld.progress import FileProgress, JobProgress
from modeld.store.blobs import blobs
from modeld.store.blobs.linked import Linked
from modeld.store.catalog.records import Records
from modeld.store.digest import Digest, Signature
from modeld.store.disk.layout import Layout
from modeld.store.manifests.entries import AtSite, Entry, cannot_be_used
from modeld.store.manifests.index import Index
from modeld.store.manifests.known_ids import KnownIds
from modeld.store.manifests.trees import Trees
from modeld.store.names import ModelName
from modelwire.errors import Corrupt, NotFound, PermissionDenied, SourceUnavailable, Unsupported, WireError
from modelwire.values import ModelView, Resolved

T = TypeVar("T")

PATIENCE_SECONDS: Final = 5.0
"""A disk that spins up takes longer than one that is there, and a file server over a slow line too."""

_REST_SECONDS: Final = 30.0
"""A site that did not answer in time is asked again after this long, or as soon as the look that was left is over."""

_READERS: Final = 2
"""Threads that copy the bytes of one site, and as many that hash them, apart from those that read and write bytes of
the store: a site that hangs holds none of these."""

_PAGE: Final = 100
"""Models of one look: the limit in time is for each."""


class Away(SourceUnavailable):
    """The root of a site cannot be read now."""

    def __init__(self, site: str, why: str, hint: str | None = None) -> None:
        super().__init__(
            f"the site {site} {why}",
            hint=hint or "Mount it, or bring its server back; nothing of it is forgotten.",
            retryable=True,
            details={"site": site},
        )


class Site:
    """For the event loop, except where they say otherwise."""

    def __init__(self, root: str, own: Layout) -> None:
        """Begins a look at the root, and does not wait for it."""
        self.root = root
        self.layout = Layout(root)
        self._records = Records(None)
        trees = Trees(own, Linked(self.layout), site=self.layout)
        self.index = Index(self.layout, trees=trees, records=self._records, site=root)
        self.real_root = self.index.submit(partial(os.path.realpath, root))
        self.index.submit(self.index.names)  # a later look that does not find a name can tell that it is one of here
        self.readers = anyio.CapacityLimiter(_READERS)
        self._hashers = anyio.CapacityLimiter(
            _READERS
        )  # others than the readers: no request for a path waits for copies
        self._hashing = ThreadPoolExecutor(_READERS, "hash at a site")
        self.ids = KnownIds(self.index, self.look)
        self._bad: dict[Digest, Signature] = {}
        self._left: set[Future[Any]] = set()
        """Work that did not answer in time, and has not ended since."""
        self._next_try = 0.0

    async def look(self, look: Callable[[], T]) -> T:
        """A look in a thread of the site. NotFound, Corrupt and Unsupported are about a model; what else fails is the
        root."""
        try:
            return await self.in_time(look)
        except (NotFound, Corrupt, Unsupported, Away):
            raise
        except WireError as fault:
            hint = fault.hint if isinstance(fault, PermissionDenied) else None
            how = "is away" if fault.retryable else "cannot be read"
            raise Away(self.root, f"{how}: {fault.message}", hint) from fault

    async def in_time(self, work: Callable[[], T]) -> T:
        """Work in a thread of the site, which is left when it does not end in time: Away then, and at once for whatever
        is asked after it, so that a request for many files waits for the site only once."""
        self._check_answers()
        working = self.index.submit(work)
        try:
            with anyio.fail_after(PATIENCE_SECONDS):
                return await asyncio.wrap_future(working)
        except TimeoutError:
            raise self._silent(working) from None

    def _check_answers(self) -> None:
        if self._left and time.monotonic() < self._next_try:
            raise Away(self.root, "does not answer")

    def _silent(self, working: Future[T]) -> Away:
        self._next_try = time.monotonic() + _REST_SECONDS
        self._left.add(working)
        working.add_done_callback(self._left.discard)
        return Away(self.root, "does not answer")

    async def views(self) -> tuple[list[ModelView], list[str]]:
        """Its models, and why some cannot be shown. While it is away, those that were seen last."""
        views, damaged, after = list[ModelView](), list[str](), None
        try:
            while True:
                page = await self.look(partial(self.index.page, after, _PAGE))
                views += page.models
                damaged += page.damaged
                after = page.next
                if after is None:
                    return views, damaged
        except Away as fault:
            return self.index.remembered(fault.message), []

    def has(self, text: str) -> bool:
        """Whether the name stood for a model of the site at the last look, with the default tag if need be. Never
        waits."""
        name = ModelName.parse(text)
        return any(self.index.knows(each) for each in (name, name.with_default_tag) if each is not None)

    async def check(self, entry: Entry) -> None:
        """Hashes the blobs whose files have changed since they were first seen, for as long as bytes come. Raises
        Corrupt."""
        async with self._hashers:
            self._check_answers()
            progress, seen = JobProgress(), -1
            hashing = self._hashing.submit(self._check, entry, FileProgress(progress))
            waiting = asyncio.wrap_future(hashing)
            try:
                while not (await asyncio.wait([waiting], timeout=PATIENCE_SECONDS))[0]:
                    if seen == progress.verified:
                        raise self._silent(hashing)
                    seen = progress.verified
                await waiting
            finally:
                progress.stop_reason = "cancel"
                waiting.cancel()

    def _check(self, entry: Entry, progress: FileProgress) -> None:
        for digest in entry.suspects():
            blob = blobs.stat_blob(self.layout, digest)
            if blob is not None and self._bad.get(digest) != blob.signature:
                verified = blobs.verify_blob(self.layout, digest, progress)
                if verified.good:
                    self._records.remember(digest, verified.blob.signature)
                    continue
                self._bad[digest] = verified.blob.signature
            raise cannot_be_used(entry, f"its blob is not what its digest names: {self.layout.blob(digest)}")


class Sites:
    """The own root first, then each site. For the event loop, but for the constructor."""

    def __init__(self, own: Index, own_root: str, sites: Sequence[Site]) -> None:
        """Blocks, for sites that hang no longer than they are waited for. ConfigError when one of them is the store's
        own root."""
        self._own = own
        self.sites = sites
        self._ids = KnownIds(own, own.in_thread)
        own.site_of = self._site_of
        until = time.monotonic() + PATIENCE_SECONDS
        for site in sites:
            with suppress(TimeoutError):
                if site.real_root.result(max(0.0, until - time.monotonic())) == os.path.realpath(own_root):
                    raise ConfigError(
                        f"[[store.site]] path is {site.root}, which is the store itself",
                        hint="Name other roots there, or choose another one for the store with models_home.",
                    )

    def of(self, entry: Entry | ModelView) -> Site | None:
        """The site that has the model."""
        return next((site for site in self.sites if site.root == entry.site), None)

    async def find(self, text: str) -> Entry:
        """As `Index.find`."""
        try:
            return await self._find_here(text)
        except (NotFound, AtSite) as fault:
            return await self._first(text, lambda site: site.look(partial(site.index.find, text)), fault)

    async def _find_here(self, text: str) -> Entry:
        return await self._own.in_thread(partial(self._own.find, text))

    async def with_id(self, id_: str) -> list[Entry]:
        """The models that are known by this id: those of the own root, else of the first site that has one."""
        if found := await self.here_with_id(id_):
            return found
        for site in self.sites:
            with suppress(Away):
                if found := await self._still_with(id_, await site.ids.names(id_), self.find):
                    return found
        return []

    async def here_with_id(self, id_: str) -> list[Entry]:
        """Those of the own root. Waits for no site."""
        return await self._still_with(id_, await self._ids.names(id_), self._find_here)

    async def _still_with(self, id_: str, names: Sequence[str], find: Callable[[str], Awaitable[Entry]]) -> list[Entry]:
        """What these names stand for now: another tool may have changed a manifest, or the own root may hide that of a
        site."""
        found = {}
        for name in names:
            with suppress(NotFound, AtSite, SourceUnavailable):
                entry = await find(name)
                if id_ in entry.ids:
                    found[entry.name.text] = entry
        return list(found.values())

    async def look_up(self, text: str, file: str | None = None) -> Resolved:
        """As `Index.look_up`."""
        try:
            return await self._own.look_up(text, file)
        except (NotFound, AtSite) as fault:
            return await self._first(text, lambda site: site.look(partial(site.index.resolve, text, file)), fault)

    async def _first(self, text: str, ask: Callable[[Site], Awaitable[T]], fault: WireError) -> T:
        away: list[tuple[Site, Away]] = []
        for site in self.sites:
            try:
                return await ask(site)
            except NotFound as missing:
                if site.has(text):  # it has the model, and not that file
                    raise missing from None
            except Away as why:
                away.append((site, why))
        for site, gone in away:
            if site.has(text):
                raise SourceUnavailable(
                    f"'{text}' is unavailable: {gone.message}",
                    hint=gone.hint,
                    retryable=True,
                    details={"name": text, "site": site.root},
                )
        if away and isinstance(fault, NotFound):
            raise NotFound(fault.message, hint=f"It may be at a site: {away[0][1].message}.", details=fault.details)
        raise fault

    def _site_of(self, name: ModelName) -> str | None:
        return next((site.root for site in self.sites if site.has(name.text)), None)

    async def views(self) -> tuple[list[ModelView], list[str]]:
        """The models of all sites, of each name the first, and why some cannot be shown. The own root may have models
        of the same names."""
        views: dict[str, ModelView] = {}
        damaged: list[str] = []
        found: dict[str, tuple[list[ModelView], list[str]]] = {}

        async def look(site: Site) -> None:
            found[site.root] = await site.views()

        async with anyio.create_task_group() as tasks:  # those that are silent are waited for together
            for site in self.sites:
                tasks.start_soon(look, site)
        for site in self.sites:
            models, unreadable = found.pop(site.root, ((), ()))  # one root may be named twice
            damaged += unreadable
            for view in models:
                views.setdefault(ModelName.parse(view.name).key, view)
        return list(views.values()), damaged

    async def blobs(self, digest: Digest) -> list[tuple[Site, str]]:
        """The paths of a blob at the sites that have a file for it, whatever its bytes are."""
        found = []
        for site in self.sites:
            path = site.layout.blob(digest)
            with suppress(Away):
                if await site.look(partial(_is_file, path)):
                    found.append((site, path))
        return found


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
