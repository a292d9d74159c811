"""The update commands that this machine has answered, and how: the same command again gets the same answer.

Without them a command that comes again would be carried out again. So a failure to read or write them is an error here.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from modeld.store.catalog.catalog import Catalog
from modelwire.values import Updated

ROOM: Final = "updates"

STEPS: Final = (
    """
    CREATE TABLE updates (
        number INTEGER PRIMARY KEY, command_id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, at REAL NOT NULL,
        outcome BLOB NOT NULL
    );
    """,
)

KEPT: Final = 10_000
"""The newest: with about a kilobyte each they take 10 MB, and a command a day fills them in 27 years."""


class Known(NamedTuple):
    content: str
    """Equal for the same command."""
    outcome: Updated


class Updates:
    """For the event loop, but `note`. Without a catalogue nothing is remembered."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._catalog = catalog
        if catalog is not None:
            catalog.migrate(ROOM, STEPS)

    async def of(self, command_id: str) -> Known | None:
        if self._catalog is None:
            return None
        query = "SELECT content, outcome FROM updates WHERE command_id = ?"
        rows = await self._catalog.read(lambda db: db.execute(query, (command_id,)).fetchall())
        return Known(rows[0][0], msgspec.json.decode(rows[0][1], type=Updated)) if rows else None

    async def newest(self, limit: int) -> tuple[Updated, ...]:
        if self._catalog is None:
            return ()
        query = "SELECT outcome FROM updates ORDER BY number DESC LIMIT ?"
        rows = await self._catalog.read(lambda db: db.execute(query, (limit,)).fetchall())
        return tuple(msgspec.json.decode(row[0], type=Updated) for row in rows)

    async def record(self, content: str, outcome: Updated) -> None:
        """Durable on return. The first outcome of a command counts."""
        if self._catalog is not None:
            await self._catalog.write(_insertion(content, outcome))

    def note(self, content: str, outcome: Updated) -> None:
        """From any thread and without waiting: it is committed with what is written next."""
        if self._catalog is not None:
            self._catalog.post(_insertion(content, outcome))


def _insertion(content: str, outcome: Updated) -> Callable[[sqlite3.Connection], None]:
    row = (outcome.command_id, content, time.time(), msgspec.json.encode(outcome))

    def insert(db: sqlite3.Connection) -> None:
        db.execute("INSERT OR IGNORE INTO updates (command_id, content, at, outcome) VALUES (?, ?, ?, ?)", row)
        db.execute("DELETE FROM updates WHERE number <= (SELECT max(number) FROM updates) - ?", (KEPT,))

    return insert
