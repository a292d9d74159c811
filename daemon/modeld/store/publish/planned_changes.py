"""How a request changes names: it plans, takes its turn, plans again, and makes the change between two notes.

A request whose outcome is unknown (the disk failed after the name had changed) can be sent again: it finds the change
and makes it durable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar, Unpack

import anyio

from modeld.store.catalog.history import THE_DAEMON, History
from modeld.store.catalog.records import Records
from modeld.store.disk.locks import StoreLock
from modeld.store.manifests import writing
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.manifests import Manifest
from modeld.store.names import ModelName
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import NameChanges, Terms, announced
from modeld.store.publish.name_locks import never
from modelwire.errors import NotFound, WireError
from modelwire.values import Copied, Moved, Pinned, Removed

Change = TypeVar("Change", Copied, Moved, Removed, Pinned)

InThread = Callable[[Callable[[], bool]], Awaitable[bool]]

_REMEMBERED: Final = 256
"""Requests whose outcome is unknown: each needs a failing disk, and is forgotten when it succeeds."""


@dataclass(frozen=True, slots=True)
class Plan(Generic[Change]):
    """The change that a request makes, as the store is now."""

    value: Change
    names: tuple[ModelName, ...]
    """As the manifest files spell them: other tools lock these spellings."""
    carry_out: Callable[[], Awaitable[None]]
    leaves: ModelName | None = None
    """The name that has no model afterwards."""
    complete: Callable[[Change], Awaitable[Change]] | None = None
    """Adds to the value, in the publisher's turn, what takes the disk to find out."""


async def nothing() -> None:
    """Of a change that has taken place."""


class Kind(Generic[Change]):
    """One kind of change. `visible` returns whether readers see the change, `complete` whether all of it is done; both
    block."""

    def __init__(self, complete: Callable[[Change], bool], visible: Callable[[Change], bool] | None = None) -> None:
        self.complete: Callable[[Change], bool] = complete
        self._visible: Callable[[Change], bool] = visible or complete
        self._unsettled: dict[tuple[str, ...], Change] = {}
        """By request: the change that was made but may not be durable."""

    def unsettled(self, *request: str) -> Change | None:
        return self._unsettled.get(request)

    def settle(self, *request: str) -> None:
        self._unsettled.pop(request, None)

    @asynccontextmanager
    async def remembering(self, in_thread: InThread, value: Change, *request: str) -> AsyncIterator[None]:
        """Around a change: after a failure it remembers the visible change for the next request of the same kind."""
        try:
            yield
        except WireError:
            if await in_thread(partial(self._visible, value)):
                self._unsettled[request] = value
                while len(self._unsettled) > _REMEMBERED:
                    del self._unsettled[next(iter(self._unsettled))]
            raise
        self.settle(*request)


class PlannedChanges:
    """`carry_out` is for the event loop; the rest looks at the disk, and blocks."""

    def __init__(
        self, name_changes: NameChanges, lock: StoreLock, holds: Holds, records: Records, history: History
    ) -> None:
        self._name_changes = name_changes
        self._index = name_changes.index
        self._layout = name_changes.layout
        self._lock = lock
        self._holds = holds
        self._records = records
        self._history = history

    async def carry_out(
        self,
        kind: Kind[Change],
        request: tuple[str, ...],
        plan: Callable[[], Plan[Change]],
        **terms: Unpack[Terms[Change]],
    ) -> Change:
        """Plans twice: first to refuse at once what cannot be done, then again in the publisher's turn."""
        in_thread = self._name_changes.in_thread
        await in_thread(self._lock.check)
        known = kind.unsettled(*request)
        if known is not None and await in_thread(partial(kind.complete, known)):
            await in_thread(partial(writing.sync_names, self._layout))
            kind.settle(*request)
            return known
        order, stopped, notes = terms.get("order", 0), terms.get("stopped", never), terms.get("notes")
        names = (await in_thread(plan)).names
        while True:
            async with self._name_changes.turn(order, *names, stopped=stopped, notes=notes):
                planned = await in_thread(plan)
                if {name.text for name in planned.names}.issubset({name.text for name in names}):
                    value = planned.value if planned.complete is None else await planned.complete(planned.value)
                    with anyio.CancelScope(shield=True):
                        for name in await in_thread(partial(self._without_model, planned.names)):
                            self._history.note_new_name(name, terms.get("requester", THE_DAEMON))
                        async with kind.remembering(in_thread, value, *request), announced(notes, value):
                            await planned.carry_out()
                        if planned.leaves is not None:
                            await self._remove_trees(planned.leaves)
                    return value
            names = planned.names  # others have changed the store: it takes other names, whose locks it does not have

    def _without_model(self, names: Sequence[ModelName]) -> list[ModelName]:
        return [name for name in names if self._index.entry(name) is None]

    async def _remove_trees(self, name: ModelName) -> None:
        """Removes the model's trees. A sweep removes what cannot be removed now."""
        trees = self._layout.trees_of(name)
        if self._holds.is_held(trees):
            return
        with suppress(WireError, OSError):
            remove = partial(self._index.trees.remove, trees)
            await self._records.record_relinked(await self._name_changes.in_thread(remove))

    def exact(self, name: ModelName) -> Entry:
        """The model of exactly this name: a change of a name does not add the default tag."""
        entry = self._index.entry(name)
        if entry is not None:
            return entry
        tagged = name.with_default_tag
        if tagged is not None and (found := self._index.entry(tagged)) is not None:
            raise NotFound(
                f"there is no model named '{name.text}', only '{found.name.text}'",
                hint=f"Use '{found.name.text}' if you mean that model.",
                details={"name": name.text, "close": [found.name.text]},
            )
        self._index.find(name.text)
        raise NotFound(f"there is no model named '{name.text}'", details={"name": name.text})

    def standing(self, text: str) -> Manifest | None:
        try:
            entry = self._index.entry(ModelName.parse(text))
        except WireError:
            return None
        return None if entry is None else entry.manifest
