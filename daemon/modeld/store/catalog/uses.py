"""When each model's path was last given out, which distinguishes old models from those in use.

Every answer notes a use, so noting is one assignment; the notes are written seconds later, many at once. A crash loses
those seconds, and nothing depends on them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection
from typing import Final

import anyio

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.tables import Tables

ROOM: Final = "uses"

STEPS: Final = ("CREATE TABLE uses (name TEXT PRIMARY KEY, used_at REAL NOT NULL) WITHOUT ROWID",)

COALESCE_SECONDS: Final = 5.0
"""A model that is resolved a thousand times a second is written once in five seconds."""


class Uses:
    """Belongs to the event loop. Without a catalogue it lasts as long as the process."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._tables = Tables(catalog, ROOM, STEPS)
        self._unwritten: dict[str, float] = {}
        self._news: anyio.Event | None = None
        self._at: dict[str, float] = dict(self._tables.load("SELECT name, used_at FROM uses"))

    def note(self, name: str) -> None:
        self._unwritten[name] = time.time()
        if self._news is not None:
            self._news.set()
            self._news = None

    def of(self, name: str) -> float | None:
        return self._unwritten.get(name) or self._at.get(name)

    def moved(self, old: str, new: str) -> None:
        """Copies the last use to the new name of a model."""
        at = self.of(old)
        if at is not None:
            self._unwritten[new] = at

    def forget(self, name: str) -> None:
        """Forgets the last use: the next model of this name has not been used."""
        self._unwritten.pop(name, None)
        if self._at.pop(name, None) is not None:
            self._unwritten[name] = 0.0

    def prune(self, names: Collection[str]) -> None:
        """Forgets the last uses of all other names: another tool has removed their models."""
        for name in [name for name in self._at if name not in names]:
            self.forget(name)

    async def keep(self) -> None:
        """Writes uses until it is cancelled; wakes up only when there is something to write."""
        while True:
            if not self._unwritten:
                self._news = anyio.Event()
                await self._news.wait()
            await anyio.sleep(COALESCE_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Writes what is not written yet; a full disk is no error."""
        now, self._unwritten = self._unwritten, {}
        self._at.update(now)
        for name in [name for name, at in now.items() if not at]:
            del self._at[name]
        if not now:
            return

        def write(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO uses VALUES (?, ?)", [row for row in now.items() if row[1]])
            db.executemany("DELETE FROM uses WHERE name = ?", [(name,) for name, at in now.items() if not at])

        await self._tables.write(write)
