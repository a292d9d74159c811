"""The models as clients see them: one model, or the pages of a list by a query."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from modeld.store.blobs.blobs import Blob, stat_blob
from modeld.store.catalog.history import History, rfc3339
from modeld.store.catalog.records import Records
from modeld.store.catalog.uses import Uses
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.manifests import manifests
from modeld.store.manifests.index import Index
from modeld.store.manifests.query import Query, Row
from modeld.store.names import ModelName
from modelwire.errors import Corrupt, InvalidRequest, WireError
from modelwire.values import Added, ModelList, ModelView

_REMEMBERED: Final = 8
"""Lists kept for clients that read page by page. After eight other lists a list is made anew."""

_AT_ONCE: Final = 100
"""Models of one page of the index."""

Asked = tuple[str | None, str | None]


class Models:
    """`show` and `page` are for the event loop; the rest looks at the disk, and blocks."""

    def __init__(
        self,
        index: Index,
        layout: Layout,
        records: Records,
        history: History,
        uses: Uses,
        *,
        seen: Callable[[ModelView], ModelView] = lambda view: view,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`seen` adds who holds a model."""
        self._index = index
        self._layout = layout
        self._records = records
        self._history = history
        self._uses = uses
        self._seen = seen
        self._clock = clock
        self._names: dict[Asked, list[str]] = {}

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

    async def standing(self, name: str) -> str:
        """What the name stands for now, as a text to compare with a later one; empty when it stands for nothing."""
        return await self._index.in_thread(partial(manifests.standing, self._layout, ModelName.parse(name)))

    async def show(self, name: str) -> ModelView:
        """One model with its manifest as it is in the file, and the outcomes of its verifications."""

        def look() -> tuple[ModelView, ModelName, list[Digest], list[Blob]]:
            entry, document = self._index.find_with_document(name)
            view = msgspec.structs.replace(self._with_use(entry.view()), manifest=document)
            named = list(entry.usable().blobs())
            return view, entry.name, named, _there(self._layout, named)

        view, found, named, blobs = await self._index.in_thread(look)
        verified = await self._records.verified_at(blobs) if len(blobs) == len(named) else None
        return msgspec.structs.replace(
            view,
            verified_at=None if verified is None else rfc3339(verified),
            history=await self._history.of(named, found),
        )

    async def page(self, filter_text: str | None, sort: str | None, *, after: str | None, limit: int) -> ModelList:
        """The models that match, after the name `after`; `next` when there are more."""
        asked = (filter_text, sort)
        query = Query.parse(*asked)
        damaged: tuple[str, ...] = ()
        if after is None or asked not in self._names:
            names, damaged = await self._index.in_thread(partial(self._select, query))
            self._names.pop(asked, None)
            self._names[asked] = names
            while len(self._names) > _REMEMBERED:
                del self._names[next(iter(self._names))]
        names = self._names[asked]
        first = 0 if after is None else _place_after(names, after)
        chosen = names[first : first + limit]
        views = await self._index.in_thread(
            lambda: [view for name in chosen if (view := self._view_now(name)) is not None]
        )
        more = first + len(chosen) < len(names)
        return ModelList(
            models=tuple(views), next=chosen[-1] if more else None, damaged=damaged if after is None else ()
        )

    def _select(self, query: Query) -> tuple[list[str], tuple[str, ...]]:
        now = self._clock()
        rows: list[Row] = []
        damaged: list[str] = []
        after: str | None = None
        while True:
            page = self._index.page(after, _AT_ONCE)
            damaged += page.damaged
            for view in map(self._seen, page.models):
                row = Row(view, self._uses.of(view.name) or self._index.published_at(view.name), now)
                if query.accepts(row):
                    rows.append(row)
            after = page.next
            if after is None:
                return [row.view.name for row in query.sorted(rows)], tuple(damaged)

    def _view_now(self, name: str) -> ModelView | None:
        """None when the model was removed since the list was made."""
        try:
            entry = self._index.entry(ModelName.parse(name))
            return None if entry is None else self._with_use(entry.view())
        except WireError:
            return None

    def _with_use(self, view: ModelView) -> ModelView:
        view, used = self._seen(view), self._uses.of(view.name)
        return view if not used else msgspec.structs.replace(view, used_at=rfc3339(used))


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
