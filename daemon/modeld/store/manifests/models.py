"""The models as clients see them: one model, or the pages of a list by a query."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from modeld.store.blobs.blobs import Blob, stat_blob
from modeld.store.catalog.history import History, rfc3339
from modeld.store.catalog.records import Records
from modeld.store.catalog.uses import Uses
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.manifests import manifests
from modeld.store.manifests.entries import MANY
from modeld.store.manifests.index import Index
from modeld.store.manifests.query import Query, Row
from modeld.store.names import ModelName
from modelwire.errors import Corrupt, InvalidRequest, WireError
from modelwire.values import Added, ModelList, ModelView

_REMEMBERED: Final = 8
"""Lists kept for clients that read page by page. After eight other lists a list is made anew."""

_AT_ONCE: Final = 100
"""Models between two turns of the event loop: one millisecond."""

Asked = tuple[str | None, str | None]


class Models:
    """For the event loop."""

    def __init__(
        self,
        index: Index,
        layout: Layout,
        records: Records,
        history: History,
        uses: Uses,
        *,
        threads: anyio.CapacityLimiter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._index = index
        self._layout = layout
        self._records = records
        self._history = history
        self._uses = uses
        self._threads = threads
        self._clock = clock
        self._names: dict[Asked, list[str]] = {}

    def count(self) -> int:
        return len(self._index.names())

    def view(self, name: str) -> ModelView:
        """A model, with its manifest as it is in the file."""
        entry = self._index.find(name)
        return msgspec.structs.replace(entry.view(), manifest=entry.document())

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
        look = partial(manifests.standing, self._layout, ModelName.parse(name))
        return await anyio.to_thread.run_sync(look, limiter=self._threads)

    async def show(self, name: str) -> ModelView:
        """One model with its manifest as it is in the file, and the outcomes of its verifications."""
        entry = self._index.find(name)
        view = self._with_use(entry.view())
        named = list(entry.usable().blobs())
        if len(named) > MANY:
            blobs = await anyio.to_thread.run_sync(partial(_there, self._layout, named), limiter=self._threads)
        else:
            blobs = _there(self._layout, named)
        verified = await self._records.verified_at(blobs) if len(blobs) == len(named) else None
        return msgspec.structs.replace(
            view,
            manifest=entry.document(),
            verified_at=None if verified is None else rfc3339(verified),
            history=await self._history.of(named, entry.name),
        )

    async def page(self, filter_text: str | None, sort: str | None, *, after: str | None, limit: int) -> ModelList:
        """The models that match, after the name `after`; `next` when there are more."""
        asked = (filter_text, sort)
        query = Query.parse(*asked)
        damaged: tuple[str, ...] = ()
        if after is None or asked not in self._names:
            rows, damaged = await self._select(query)
            self._names.pop(asked, None)
            self._names[asked] = [row.view.name for row in query.sorted(rows)]
            while len(self._names) > _REMEMBERED:
                del self._names[next(iter(self._names))]
        names = self._names[asked]
        first = 0 if after is None else _place_after(names, after)
        chosen = names[first : first + limit]
        views = [view for name in chosen if (view := self._view_now(name)) is not None]
        more = first + len(chosen) < len(names)
        return ModelList(
            models=tuple(views), next=chosen[-1] if more else None, damaged=damaged if after is None else ()
        )

    async def _select(self, query: Query) -> tuple[list[Row], tuple[str, ...]]:
        now = self._clock()
        rows: list[Row] = []
        damaged: list[str] = []
        after: str | None = None
        while True:
            page = self._index.page(after, _AT_ONCE)
            damaged += page.damaged
            for view in page.models:
                row = Row(view, self._uses.of(view.name) or self._index.published_at(view.name), now)
                if query.accepts(row):
                    rows.append(row)
            after = page.next
            if after is None:
                return rows, tuple(damaged)
            await anyio.lowlevel.checkpoint()

    def _view_now(self, name: str) -> ModelView | None:
        """None when the model was removed since the list was made."""
        try:
            entry = self._index.entry(ModelName.parse(name))
            return None if entry is None else self._with_use(entry.view())
        except WireError:
            return None

    def _with_use(self, view: ModelView) -> ModelView:
        used = self._uses.of(view.name)
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
