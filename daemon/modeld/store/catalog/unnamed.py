"""When blobs lost a name: their grace period counts from then, and so the daemon knows when a sweep has work.

A blob that has another name is here too until a sweep looks at it. What is lost with the catalogue, or was never known
because another tool removed the manifest, is found by the walk that a sweep makes now and then.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.tables import Tables
from modeld.store.digest import Digest

ROOM: Final = "unnamed"

STEPS: Final = (
    """
    CREATE TABLE unnamed (digest TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE walked (only INTEGER PRIMARY KEY CHECK (only = 1), at REAL NOT NULL);
    """,
)


class Unnamed:
    """`since` may be called from any thread, the rest belongs to the event loop. Without a catalogue it lasts as long
    as the process."""

    def __init__(self, catalog: Catalog | None, clock: Callable[[], float] = time.time) -> None:
        self._tables = Tables(catalog, ROOM, STEPS)
        self._clock = clock
        self._since: dict[str, float] = dict(self._tables.load("SELECT digest, since FROM unnamed"))
        self._earliest = min(self._since.values(), default=None)
        self._losing: Counter[str] = Counter()
        walks = self._tables.load("SELECT at FROM walked")
        self.walked_at: float | None = walks[0][0] if walks else None
        """When a sweep last looked at all blobs."""
        self.on_loss: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._since)

    def since(self, digest: str) -> float | None:
        """When the blob, in hex, lost a name."""
        at = self._since.get(digest)
        return None if at is None else min(at, self._clock())

    def earliest(self) -> float | None:
        """Of all blobs here, when the first of them lost its name."""
        now = self._clock()
        if self._earliest is not None and self._earliest > now:
            # The clock was set back: they count from now, or they would stay for as long.
            self._since = dict.fromkeys(self._since, now)
            self._earliest = now
        return self._earliest

    def before(self, moment: float, most: int) -> list[Digest]:
        """Blobs that lost their name at that moment or earlier."""
        found = (digest for digest, at in self._since.items() if at <= moment and digest not in self._losing)
        return [Digest(digest) for digest in islice(found, most)]

    @asynccontextmanager
    async def losing(self, digests: Collection[Digest]) -> AsyncIterator[None]:
        """Around the step in which a manifest that names these blobs goes. They are noted before it, durably: a crash
        in between leaves a note too many."""
        hexes = [digest.hex for digest in digests]
        self._losing.update(hexes)
        try:
            await self._set(dict.fromkeys(hexes, self._clock()))
            yield
        finally:
            self._losing = +(self._losing - Counter(hexes))
            if hexes:
                self.on_loss()

    def noted(self, digests: Collection[Digest] | None = None) -> dict[str, float]:
        """What `settle` compares with, of these blobs or of all: call it before a sweep looks at the manifests."""
        if digests is None:
            return dict(self._since)
        return {digest.hex: self._since[digest.hex] for digest in digests if digest.hex in self._since}

    async def settle(self, noted: dict[str, float], later: dict[str, float], done: Collection[str]) -> None:
        """After a sweep: `done` are removed or have a name, `later` may go when their new time is old enough. A blob
        that has lost another name meanwhile stays as it is."""
        same = {digest for digest, at in noted.items() if self._since.get(digest) == at and digest not in self._losing}
        await self._set({digest: at for digest, at in later.items() if digest in same}, same.intersection(done))

    async def walked(self, at: float) -> None:
        self.walked_at = at
        await self._tables.write(lambda db: db.execute("INSERT OR REPLACE INTO walked VALUES (1, ?)", (at,)))

    async def _set(self, since: dict[str, float], gone: Collection[str] = ()) -> None:
        self._since.update(since)
        for digest in gone:
            self._since.pop(digest, None)
        self._earliest = min(self._since.values(), default=None)

        def write(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO unnamed VALUES (?, ?)", list(since.items()))
            db.executemany("DELETE FROM unnamed WHERE digest = ?", [(digest,) for digest in gone])

        if since or gone:
            await self._tables.write(write)
