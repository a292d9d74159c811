"""When each blob was last looked at by a scrub, and where a scrub that was interrupted is.

What is lost with the catalogue is looked at again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from modeld.store.blobs.background import Place
from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.tables import Tables
from modeld.store.digest import Digest, Signature

ROOM: Final = "scrub"

STEPS: Final = (
    """
    CREATE TABLE scrubbed (
        digest TEXT PRIMARY KEY, looked_at REAL NOT NULL, quick INTEGER NOT NULL, fault TEXT
    ) WITHOUT ROWID;
    CREATE TABLE scrub_place (
        only INTEGER PRIMARY KEY CHECK (only = 1), digest TEXT NOT NULL, signature TEXT NOT NULL, offset INTEGER
    );
    CREATE TABLE scrub_ended (
        only INTEGER PRIMARY KEY CHECK (only = 1), at REAL NOT NULL, checked INTEGER NOT NULL, failed INTEGER NOT NULL
    );
    """,
    """
    ALTER TABLE scrub_place ADD COLUMN since REAL NOT NULL DEFAULT 0;
    CREATE TABLE scrub_rest (only INTEGER PRIMARY KEY CHECK (only = 1), at REAL NOT NULL);
    """,
)


class Look(msgspec.Struct, frozen=True):
    """The last look at a blob. `quick` counts those by checksums since the last hash."""

    at: float
    quick: int = 0
    fault: str | None = None

    def counts(self, since: float, now: float, *, full: bool) -> bool:
        """For a scrub that began at `since`; a `full` one wants a hash."""
        return since <= self.at <= now and not (full and self.quick)


class Ended(msgspec.Struct, frozen=True):
    """The end of the last scrub."""

    at: float
    checked: int
    failed: int


class Scrubs:
    """For the event loop. Without a catalogue nothing is remembered, except in this run where the last scrub ended."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._tables = Tables(catalog, ROOM, STEPS)
        ended = self._tables.load("SELECT at, checked, failed FROM scrub_ended")
        self.ended = Ended(*ended[0]) if ended else None
        rests = self._tables.load("SELECT at FROM scrub_rest")
        self.rested_at: float | None = rests[0][0] if rests else None
        """When the daemon's own scrub last ended, however it did."""
        places = self._tables.load("SELECT digest, signature, offset, since FROM scrub_place")
        self._place = Place(Digest(places[0][0]), Signature.parse(places[0][1]), places[0][2]) if places else None
        self._since: float = places[0][3] if places else 0.0

    def place(self, since: float) -> Place | None:
        """Where the scrub that began at `since` was interrupted. What another has read of a blob may have rotted since
        then."""
        return self._place if since == self._since else None

    def looks(self, digests: Sequence[Digest]) -> dict[Digest, Look]:
        """Blobs that no scrub has looked at are left out. For threads: blocks."""
        query = "SELECT digest, looked_at, quick, fault FROM scrubbed WHERE digest IN ({})"
        rows = self._tables.look_among(query, [digest.hex for digest in digests])
        return {Digest(digest): Look(at, quick, fault) for digest, at, quick, fault in rows}

    async def looked(self, looks: Sequence[tuple[Digest, Look]]) -> None:
        """Records looks, and that no blob is half read."""
        self._place = None
        rows = [(digest.hex, look.at, look.quick, look.fault) for digest, look in looks]

        def write(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO scrubbed VALUES (?, ?, ?, ?)", rows)
            db.execute("DELETE FROM scrub_place")

        await self._tables.write(write)

    async def reached(self, place: Place, since: float) -> None:
        """Records where the scrub that began at `since` is in a long blob."""
        if place == self.place(since):
            return
        self._place, self._since = place, since
        row = (place.digest.hex, place.signature.text, place.offset, since)
        await self._tables.write(
            lambda db: db.execute("INSERT OR REPLACE INTO scrub_place VALUES (1, ?, ?, ?, ?)", row)
        )

    async def rest(self, at: float) -> None:
        self.rested_at = at
        await self._tables.write(lambda db: db.execute("INSERT OR REPLACE INTO scrub_rest VALUES (1, ?)", (at,)))

    async def none_after(self, now: float, instead: float) -> None:
        """Gives looks by a clock that was ahead another time, or their blobs would not be due for as long."""
        await self._tables.write(
            lambda db: db.execute("UPDATE scrubbed SET looked_at = ? WHERE looked_at > ?", (instead, now))
        )

    async def end(self, ended: Ended, before: float | None = None) -> None:
        """Records the end of a scrub. After one that has looked at all that is older than `before`, forgets the blobs
        whose last look is: no model names them any more."""
        self.ended, row = ended, (ended.at, ended.checked, ended.failed)

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO scrub_ended VALUES (1, ?, ?, ?)", row)
            if before is not None:
                db.execute("DELETE FROM scrubbed WHERE looked_at < ?", (before,))

        await self._tables.write(write)
