"""The update commands that this machine has answered, and how: the same command again gets the same answer.

Without them a command that comes again would be carried out again. So a failure to read them is an error here, and the
newest are written again when the catalogue has lost its last writes.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import deque
from typing import Any, Final, NamedTuple

import msgspec

from modeld.store.catalog.catalog import Catalog
from modelwire.errors import WireError
from modelwire.values import Updated

ROOM: Final = "updates"

STEPS: Final = (
    """
    CREATE TABLE updates (
        number INTEGER PRIMARY KEY, command_id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, at REAL NOT NULL,
        carried_out INTEGER NOT NULL, outcome BLOB NOT NULL
    );
    CREATE INDEX updates_carried_out ON updates (carried_out, number);
    """,
)

KEPT: Final = 10_000
"""The newest of the commands that were carried out, and of the others: they take some 10 MB each, and a command a day
fills them in 27 years. Commands that do nothing push out none that did something."""

IN_MEMORY: Final = 256
"""The newest, until the next checkpoint has surely put them into the file."""

_NOTHING_DONE: Final = frozenset({"not_targeted", "does_not_fit"})

_INSERT: Final = "INSERT OR IGNORE INTO updates (command_id, content, at, carried_out, outcome) VALUES (?, ?, ?, ?, ?)"

_PRUNE: Final = """
    DELETE FROM updates WHERE carried_out = ?1 AND number <= (
        SELECT number FROM updates WHERE carried_out = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2
    )
"""


class Known(NamedTuple):
    content: str
    """Equal for the same command."""
    outcome: Updated


class Updates:
    """For the event loop, but `note`. Without a catalogue nothing is remembered."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._catalog = catalog
        self._newest = deque[tuple[Any, ...]](maxlen=IN_MEMORY)
        if catalog is not None:
            catalog.migrate(ROOM, STEPS)
            catalog.on_loss(self._write_again)

    async def of(self, command_id: str) -> Known | None:
        if self._catalog is None:
            return None
        query = "SELECT content, outcome FROM updates WHERE command_id = ?"
        rows = await self._catalog.read(lambda db: db.execute(query, (command_id,)).fetchall())
        return Known(rows[0][0], msgspec.json.decode(rows[0][1], type=Updated)) if rows else None

    async def later(self, name: str, job: str, since: float) -> Updated | None:
        """An outcome by which the name was given to a version, of a job that was admitted after this one. None
        of them is older than `since`."""
        if self._catalog is None:
            return None
        query = "SELECT outcome FROM updates WHERE carried_out AND at >= ? ORDER BY number DESC"
        rows = [*await self._catalog.read(lambda db: db.execute(query, (since,)).fetchall())]
        rows += [(row[-1],) for row in self._newest]  # the disk may not have taken it yet
        outcomes = (msgspec.json.decode(row[0], type=Updated) for row in rows)
        moved = (each for each in outcomes if each.name == name and each.blob is not None)
        return next((each for each in moved if each.job is not None and each.job > job), None)

    async def newest(self, limit: int, most_bytes: int) -> tuple[Updated, ...]:
        """As many as have no more bytes of JSON."""
        if self._catalog is None:
            return ()
        query = "SELECT outcome FROM updates ORDER BY number DESC LIMIT ?"

        def read(db: sqlite3.Connection) -> list[bytes]:
            found, room = list[bytes](), most_bytes
            for (outcome,) in db.execute(query, (limit,)):
                room -= len(outcome)
                if room < 0:
                    break
                found.append(outcome)
            return found

        return tuple(msgspec.json.decode(each, type=Updated) for each in await self._catalog.read(read))

    async def record(self, content: str, outcome: Updated) -> None:
        """Durable on return, unless the disk takes nothing now: then with what is written next. The first outcome of a
        command counts."""
        row = self._row(content, outcome)
        if self._catalog is None:
            return
        try:
            await self._catalog.write(lambda db: _insert(db, row))
        except WireError:
            self._post(row)

    def note(self, content: str, outcome: Updated) -> None:
        """From any thread and without waiting: it is committed with what is written next."""
        self._post(self._row(content, outcome))

    def _row(self, content: str, outcome: Updated) -> tuple[Any, ...]:
        done = outcome.outcome not in _NOTHING_DONE
        row = (outcome.command_id, content, time.time(), done, msgspec.json.encode(outcome))
        self._newest.append(row)
        return row

    def _post(self, row: tuple[Any, ...]) -> None:
        if self._catalog is not None:
            with contextlib.suppress(WireError):
                self._catalog.post(lambda db: _insert(db, row))

    def _write_again(self, db: sqlite3.Connection) -> None:
        for row in tuple(self._newest):
            _insert(db, row)


def _insert(db: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    db.execute(_INSERT, row)
    db.execute(_PRUNE, (row[3], KEPT))
