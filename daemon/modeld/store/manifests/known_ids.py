"""Which models are known by an id beside their name: a map from ids to names, for all manifests of one root.

The first look-up reads all manifests. After it, where the system reports each change of the directory, a look-up reads
only those that have changed since. Elsewhere all are looked at again, after a multiple of the time that a look takes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import anyio

from modeld.store.manifests.index import Index
from modeld.store.names import ModelName

_AT_ONCE: Final = 200
"""Models of one visit to a thread, as of the index; at a site the limit in time is for each visit."""

_FRESH_SHARE: Final = 10
"""A look at 10,000 manifests that have not changed takes 0.4 s: where no change is reported, look-ups spend a tenth of
their time on it."""


InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a look at the disk of the root in a thread, and returns what it found."""


class KnownIds:
    """For the event loop."""

    def __init__(self, index: Index, in_thread: InThread, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the reports of the index about changed manifests."""
        self._index = index
        self._in_thread = in_thread
        self._clock = clock
        self._turn = anyio.Lock()
        self._ids: dict[str, Sequence[str]] = {}
        """Of the models that have any, by name."""
        self._names: defaultdict[str, set[str]] = defaultdict(set)
        """By id."""
        self._changed: set[str] = set()
        """Names whose manifests are to be read again. Any thread adds to it."""
        self._watched: object | None = None
        self._fresh_until = float("-inf")
        index.changed = index.current.changed = self._changed.add

    async def names(self, id_: str) -> list[str]:
        """The names of the models with this id, sorted."""
        async with self._turn:
            current = self._index.current
            current.seen()  # takes the changes that the system has reported
            watched = self._watched is not None and current.unbroken is self._watched
            if watched or self._clock() < self._fresh_until:
                await self._read_changed()
            else:
                await self._read_all()
            return sorted(self._names.get(id_, ()))

    async def _read_all(self) -> None:
        began = self._clock()
        self._changed.clear()
        watched = await self._in_thread(self._index.current.watch_manifests)
        found = await self._read(list(await self._in_thread(self._index.names)))
        self._ids.clear()
        self._names.clear()
        for name, ids in found.items():
            self._note(name, ids)
        ended = self._clock()
        self._watched = watched
        self._fresh_until = float("-inf") if watched is not None else ended + (ended - began) * _FRESH_SHARE

    async def _read_changed(self) -> None:
        names = [self._changed.pop() for _ in range(len(self._changed))]
        try:
            found = await self._read(names)
        except BaseException:
            self._changed.update(names)
            raise
        for name in names:
            self._note(name, found.get(name, ()))

    async def _read(self, names: Sequence[str]) -> dict[str, Sequence[str]]:
        found: dict[str, Sequence[str]] = {}
        for first in range(0, len(names), _AT_ONCE):
            found.update(await self._in_thread(partial(self._ids_of, names[first : first + _AT_ONCE])))
        return found

    def _ids_of(self, names: Iterable[str]) -> dict[str, Sequence[str]]:
        """Blocking."""
        entries = ((name, self._index.entry(ModelName.parse(name))) for name in names)
        return {name: entry.ids for name, entry in entries if entry is not None and entry.ids}

    def _note(self, name: str, ids: Sequence[str]) -> None:
        for id_ in self._ids.pop(name, ()):
            self._names[id_].discard(name)
            if not self._names[id_]:
                del self._names[id_]
        if ids:
            self._ids[name] = ids
            for id_ in ids:
                self._names[id_].add(name)
