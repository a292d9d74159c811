"""The models as clients see them: one model, or the pages of a list by a query."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from modeld.store.blobs.blobs import Blob, stat_blob
from modeld.store.catalog.facts import Facts
from modeld.store.catalog.history import MOST_SHOWN, History, rfc3339
from modeld.store.catalog.records import Records
from modeld.store.catalog.uses import Uses
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.manifests import coming, documents, manifests
from modeld.store.manifests.coming import ComingModel
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.index import Index
from modeld.store.manifests.manifests import Manifest
from modeld.store.manifests.model_facts import facts_of, header_of
from modeld.store.manifests.query import Query, Row
from modeld.store.manifests.registrations import Registrations
from modeld.store.manifests.sites import Site, Sites
from modeld.store.names import ModelName
from modelwire.errors import Corrupt, InvalidRequest, NotFound, Unsupported, WireError
from modelwire.knowledge.requirements import Requirements
from modelwire.values import Added, ModelList, ModelView
from modelwire.vocabulary import COMING, GIVEN_OUT

_REMEMBERED: Final = 8
"""Lists kept for clients that read page by page. After eight other lists a list is made anew."""

_AT_ONCE: Final = 100
"""Models of one page of the index."""

Asked = tuple[str | None, str | None, bool]

Suits = Callable[[Requirements], bool]


class Kept(NamedTuple):
    """What a model keeps that is not given out: the path that it had, and when its bytes were last found good. None
    for what is not known."""

    path: str | None = None
    verified_at: str | None = None


_GOOD: Final = frozenset({"added", "repaired", "verified"})
"""Outcomes after which the bytes of a blob are those that its digest says."""


class _List(NamedTuple):
    """A list that a client reads page by page."""

    names: list[str]
    elsewhere: dict[str, ModelView]
    """Of these names: the models of sites, and those whose root is away."""


class Models:
    """`show` and `page` are for the event loop; the rest looks at the disk, and blocks."""

    def __init__(
        self,
        index: Index,
        layout: Layout,
        records: Records,
        history: History,
        uses: Uses,
        sites: Sites,
        facts: Facts,
        *,
        registrations: Registrations,
        seen: Callable[[ModelView], ModelView] = lambda view: view,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`seen` adds who holds a model."""
        self._index = index
        self._layout = layout
        self._records = records
        self._history = history
        self._uses = uses
        self._sites = sites
        self._facts = facts
        self._registrations = registrations
        self._seen = seen
        self._clock = clock
        self._lists: dict[Asked, _List] = {}
        self.arriving: Callable[[], Sequence[ComingModel]] = tuple
        """The models that running jobs bring. Called on the event loop, before a look at the manifests: a model that is
        published meanwhile is found by one of the two."""

        self.failed_fetches: Callable[[Sequence[str]], Awaitable[Mapping[str, str]]] = _none
        """Of these models those whose last fetch failed, and why."""

    async def _coming(self) -> list[ComingModel]:
        """A registered model whose bytes are on their way keeps its document; one that could not be fetched has
        failed."""
        models = {each.name.key: each for each in self._registrations.models()}
        if models:
            for name, why in (await self.failed_fetches([each.name.text for each in models.values()])).items():
                models[name.lower()] = models[name.lower()].failing(why)
        for each in self.arriving():
            registered = models.get(each.name.key)
            models[each.name.key] = each if registered is None else each.of_registered(registered)
        return list(models.values())

    def view(self, name: str) -> ModelView:
        """A model, with its manifest as it is in the file."""
        entry, document = self._index.find_with_document(name)
        return msgspec.structs.replace(entry.view(), manifest=document)

    def stands_for(self, added: Added) -> bool:
        """Whether the name stands for exactly this content now: a restart checks it for an interrupted job."""
        try:
            entry = self._index.entry(ModelName.parse(added.name))
            if entry is None or entry.manifest is None:
                return False
            return entry.manifest.is_of(added.blob, added.files) and entry.look().has_bytes
        except WireError:
            return False

    def has_digest(self, name: str, digest: str) -> bool:
        """As `stands_for`, for a model of one file and its digest: of several files it says nothing of the others."""
        try:
            entry = self._index.entry(ModelName.parse(name))
            if entry is None or not entry.look().has_bytes:
                return False
            manifest = entry.usable()
            return not manifest.files and manifest.digest.text == digest
        except WireError:
            return False

    def same(self, name: str, other: str) -> bool:
        """Whether both names stand for the same files, which are here."""
        try:
            one, two = self._index.entry(ModelName.parse(name)), self._index.entry(ModelName.parse(other))
            if one is None or two is None or not one.look().has_bytes:
                return False
            return one.usable().content == two.usable().content
        except WireError:
            return False

    async def standing(self, name: str) -> str:
        """What the name stands for now, as a text to compare with a later one; empty when it stands for nothing."""
        return await self._index.in_thread(partial(manifests.standing, self._layout, ModelName.parse(name)))

    async def show(
        self, name: str, *, keys: Sequence[str] = (), tensors: bool = False, provenance: bool = False
    ) -> ModelView:
        """One model with its manifest as it is in the file, what its headers say, and the outcomes of its
        verifications. `keys` and `tensors` request more of the header, `provenance` more of the outcomes."""

        def with_facts(view: ModelView, entry: Entry, layout: Layout, **known: Any) -> ModelView:
            whole, manifest = view.state in GIVEN_OUT, documents.with_block(entry.usable(), view.manifest or {})
            facts = facts_of(manifest, layout, whole=whole, **known)
            size = _first_size(view)
            view = msgspec.structs.replace(
                view,
                facts=facts,
                model=msgspec.to_builtins(documents.describing(manifest, size, facts)),
                reason=view.reason or documents.contradiction(manifest, size),
            )
            if not keys and not tensors:
                return view
            if not whole:
                raise _no_header(view)
            header, listed = header_of(manifest, layout, keys, tensors=tensors)
            return msgspec.structs.replace(view, header=header, tensors=listed)

        def look(index: Index, layout: Layout) -> tuple[ModelView, Entry, list[Blob]]:
            entry, document = index.find_with_document(name)
            view = msgspec.structs.replace(self._with_use(entry.view()), manifest=document)
            return view, entry, _there(layout, list(entry.usable().blobs()))

        def look_at_site(site: Site) -> ModelView:
            view, entry, _ = look(site.index, site.layout)
            return with_facts(view, entry, site.layout)

        arriving = await self._coming()
        coming_here = coming.named(name, arriving)
        try:
            found = await self._sites.find(name)
        except NotFound:
            if coming_here is None:
                raise
            if keys or tensors:
                raise _no_header(coming_here.view) from None
            return coming_here.described()
        site = self._sites.of(found)
        if site is not None:
            return await site.look(partial(look_at_site, site))
        view, entry, blobs = await self._index.in_thread(partial(look, self._index, self._layout))
        named = list(entry.usable().blobs())
        verified = await self._records.verified_at(blobs) if len(blobs) == len(named) else None
        signatures = {} if verified is None else {blob.digest: blob.signature for blob in blobs}
        read = partial(with_facts, view, entry, self._layout, facts=self._facts, verified=signatures)
        return msgspec.structs.replace(
            coming.fetched_again(await self._index.in_thread(read), arriving),
            verified_at=None if verified is None else rfc3339(verified),
            history=await self._history.of(named, entry.name, MOST_SHOWN if provenance else None),
        )

    async def kept(self, view: ModelView) -> Kept:
        """Of a view that `show` has made."""
        entry = self._index_of(view).seen(view.name)
        if view.state in GIVEN_OUT or entry is None or entry.ready is None or entry.manifest is None:
            return Kept()
        if view.site is not None:
            return Kept(entry.ready.path)  # the records are of the own store
        named = list(entry.manifest.blobs())
        hashed = await self._index.in_thread(partial(self._records.hashed_at, named))
        good_at = {each.blob: each.time for each in view.history if each.outcome in _GOOD}
        # The record of a blob that was set aside is gone; its history stays.
        good_at.update((digest.text, rfc3339(moment)) for digest, moment in hashed.items())
        all_known = all(digest.text in good_at for digest in named)
        return Kept(entry.ready.path, min(good_at[digest.text] for digest in named) if all_known else None)

    async def page(
        self, filter_text: str | None, sort: str | None, *, suits: Suits | None = None, after: str | None, limit: int
    ) -> ModelList:
        """The models that match and whose requirements suit, after the name `after`; `next` when there are more."""
        asked = (filter_text, sort, suits is not None)
        query = Query.parse(filter_text, sort)
        damaged: tuple[str, ...] = ()
        without_manifest = await self._coming()
        if after is None or asked not in self._lists:
            elsewhere, at_sites = await self._sites.views()
            made, own = await self._index.in_thread(partial(self._select, query, suits, elsewhere, without_manifest))
            damaged = (*own, *at_sites, *self._registrations.damaged)
            self._lists.pop(asked, None)
            self._lists[asked] = made
            while len(self._lists) > _REMEMBERED:
                del self._lists[next(iter(self._lists))]
        names, elsewhere_now = self._lists[asked]
        first = 0 if after is None else _place_after(names, after)
        chosen = names[first : first + limit]
        views = await self._index.in_thread(partial(self._views_now, chosen, elsewhere_now, without_manifest))
        more = first + len(chosen) < len(names)
        return ModelList(
            models=tuple(views), next=chosen[-1] if more else None, damaged=damaged if after is None else ()
        )

    def _select(
        self,
        query: Query,
        suits: Suits | None,
        elsewhere: Sequence[ModelView],
        without_manifest: Sequence[ComingModel],
    ) -> tuple[_List, list[str]]:
        now = self._clock()
        rows: list[Row] = []

        def take(views: Iterable[ModelView]) -> None:
            for view in map(self._seen, (coming.fetched_again(view, without_manifest) for view in views)):
                used = self._uses.of(view.name) or self._index_of(view).published_at(view.name)
                row = Row(view, used, now)
                if query.accepts(row) and (suits is None or suits(self._requirements(view))):
                    rows.append(row)

        views, damaged = self._own()
        take(views)
        # Not before the own root was looked at: its model of a name hides that of a site, a damaged one too.
        elsewhere = [view for view in elsewhere if not self._index.knows(ModelName.parse(view.name))]
        take(elsewhere)
        away = {view.name: view for view in elsewhere}
        away.update((view.name, view) for view in views if view.state == "unavailable")
        at_sites = {ModelName.parse(name).key for name in away}
        for each in without_manifest:
            key = each.name.key
            if key in at_sites or self._index.knows(each.name) or not query.accepts(Row(each.view, now, now)):
                continue
            if suits is None or suits(each.read_document().requirements):
                rows.append(Row(each.view, now, now))
        return _List([row.view.name for row in query.sorted(rows)], away), damaged

    def _own(self) -> tuple[list[ModelView], list[str]]:
        """While the root is away, the models as they were last seen."""
        views: list[ModelView] = []
        damaged: list[str] = []
        after: str | None = None
        while True:
            try:
                page = self._index.page(after, _AT_ONCE)
            except WireError as fault:
                if not fault.retryable or not (views := self._index.remembered(f"the store is away: {fault.message}")):
                    raise
                return views, [fault.message]
            damaged += page.damaged
            views += page.models
            after = page.next
            if after is None:
                return views, damaged

    def _views_now(
        self, names: Sequence[str], elsewhere: Mapping[str, ModelView], without_manifest: Sequence[ComingModel]
    ) -> list[ModelView]:
        """With their documents, for which no blob is opened."""
        chosen = set(names)
        described = {each.name.text: each.described() for each in without_manifest if each.name.text in chosen}
        found = (self._view_now(name, elsewhere) or described.get(name) for name in names)
        views = [coming.fetched_again(view, without_manifest) for view in found if view is not None]
        read = {view.name: manifest for view in views if (manifest := self._read(view)) is not None}
        facts = self._facts.known([each.digest for each in read.values() if not bytes(each.model)])
        return [
            view
            if (manifest := read.get(view.name)) is None
            else msgspec.structs.replace(
                view,
                model=msgspec.to_builtins(
                    documents.describing(manifest, _first_size(view), facts.get(manifest.digest))
                ),
            )
            for view in views
        ]

    def _read(self, view: ModelView) -> Manifest | None:
        """The manifest with its document; None when it is gone, or its root is away."""
        entry = self._index_of(view).seen(view.name)
        if entry is None or entry.manifest is None or view.state == "unavailable":
            return None
        if bytes(entry.manifest.model):
            return entry.manifest
        with suppress(WireError, OSError):
            return manifests.read(entry.path, entry.name)[0]
        return None

    def _requirements(self, view: ModelView) -> Requirements:
        manifest = self._read(view)
        document = None if manifest is None else documents.written(manifest)
        return Requirements() if document is None else document.requirements

    def _index_of(self, view: ModelView) -> Index:
        site = self._sites.of(view)
        return self._index if site is None else site.index

    def _view_now(self, name: str, elsewhere: Mapping[str, ModelView]) -> ModelView | None:
        """None when the model was removed since the list was made."""
        if name in elsewhere:
            return self._with_use(elsewhere[name])
        try:
            entry = self._index.entry(ModelName.parse(name))
            return None if entry is None else self._with_use(entry.view())
        except WireError:
            return None

    def _with_use(self, view: ModelView) -> ModelView:
        view, used = self._seen(view), self._uses.of(view.name)
        return view if not used else msgspec.structs.replace(view, used_at=rfc3339(used))


async def _none(_: Sequence[str]) -> Mapping[str, str]:
    return {}


def _no_header(view: ModelView) -> Unsupported:
    waits = view.state in COMING
    return Unsupported(
        f"the header of '{view.name}' is not read: {view.reason or view.state}",
        hint="Ask again when its bytes are here." if waits else f"Run `modelctl verify {view.name}`.",
        details={"name": view.name},
    )


def _first_size(view: ModelView) -> int:
    """Of the blob that stands for the model."""
    return next((file.size_bytes for file in view.files if file.blob == view.blob), view.size_bytes)


def _there(layout: Layout, digests: Sequence[Digest]) -> list[Blob]:
    found = []
    for digest in digests:
        with suppress(Corrupt):  # not a regular file, so not a blob
            blob = stat_blob(layout, digest)
            if blob is not None:
                found.append(blob)
    return found


def _place_after(names: list[str], after: str) -> int:
    try:
        return names.index(after) + 1
    except ValueError:
        raise InvalidRequest(
            f"$.after: {after[:160]!r} is not in this list any more", hint="Request its first page again."
        ) from None
