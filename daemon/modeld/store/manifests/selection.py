"""A list of models by a query, page by page, without keeping anybody else waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import anyio.lowlevel
import msgspec

from modeld.store.catalog.history import rfc3339
from modeld.store.catalog.uses import Uses
from modeld.store.manifests.index import Index
from modeld.store.manifests.query import Query, Row
from modeld.store.names import ModelName
from modelwire.errors import InvalidRequest, WireError
from modelwire.values import ModelList, ModelView

_REMEMBERED: Final = 8
"""Lists that are being read page by page. Who comes later than eight others starts anew without noticing."""

_AT_ONCE: Final = 100
"""Models between two looks at what else the event loop has to do: one millisecond."""

Asked = tuple[str | None, str | None]


class Selections:
    """For the event loop."""

    def __init__(self, index: Index, uses: Uses, clock: Callable[[], float] = time.time) -> None:
        self._index = index
        self._uses = uses
        self._clock = clock
        self._names: dict[Asked, list[str]] = {}

    async def page(self, filter_text: str | None, sort: str | None, *, after: str | None, limit: int) -> ModelList:
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
        views = [view for name in chosen if (view := self._view(name)) is not None]
        more = first + len(chosen) < len(names)
        return ModelList(
            models=tuple(views), next=chosen[-1] if more else None, damaged=damaged if after is None else ()
        )

    def with_use(self, view: ModelView) -> ModelView:
        used = self._uses.of(view.name)
        return view if not used else msgspec.structs.replace(view, used_at=rfc3339(used))

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

    def _view(self, name: str) -> ModelView | None:
        """As it is now; None when it has gone since the list was made."""
        try:
            entry = self._index.entry(ModelName.parse(name))
            return None if entry is None else self.with_use(entry.view())
        except WireError:
            return None


def _place_after(names: list[str], after: str) -> int:
    try:
        return names.index(after) + 1
    except ValueError:
        raise InvalidRequest(
            f"$.after: {after[:160]!r} is not in this list any more", hint="ask for its first page again"
        ) from None
