"""The update commands that this machine has answered, and how: the same command again gets the same answer.

Without them a command that comes again would be carried out again. So a failure to read them is an error here, and the
newest are written again when the catalogue has lost its last writes.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import anyio
import msgspec

from modeld.store.catalog.catalog import Catalog
from modelwire.errors import NoSpace, WireError
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

LATE_SECONDS: Final = 1.0
"""Between attempts to write what a full disk did not take."""

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
        self._late: dict[str, tuple[Any, ...]] = {}
        """By command, what the disk has not taken yet: as few as the jobs that a full disk lets end."""
        self._news = anyio.Event()
        if catalog is not None:
            catalog.migrate(ROOM, STEPS)
            catalog.on_loss(self._write_again)

    async def of(self, command_id: str) -> Known | None:
        if self._catalog is None:
            return None
        query = "SELECT content, outcome FROM updates WHERE command_id = ?"
        rows = await self._catalog.read(lambda db: db.execute(query, (command_id,)).fetchall())
        if not rows and (late := self._late.get(command_id)) is not None:
            rows = [(late[1], late[-1])]
        return Known(rows[0][0], msgspec.json.decode(rows[0][1], type=Updated)) if rows else None

    async def later(self, name: str, job: str) -> Updated | None:
        """The outcome of a job admitted after this one that gave the name to a version. Ids of jobs increase, also when
        the clock is set back."""
        if self._catalog is None:
            return None
        query = "SELECT outcome FROM updates WHERE carried_out ORDER BY number DESC"
        late = [(row[-1],) for row in self._late.values()]

        def read(db: sqlite3.Connection) -> Updated | None:
            for (outcome,) in [*late, *db.execute(query)]:
                found = msgspec.json.decode(outcome, type=Updated)
                if found.name == name and found.blob is not None and found.job is not None and found.job > job:
                    return found
            return None

        return await self._catalog.read(read)

    async def newest(self, limit: int, most_bytes: int) -> tuple[Updated, ...]:
        """The newest, as far as they fit into `most_bytes` of JSON."""
        if self._catalog is None:
            return ()
        with contextlib.suppress(WireError):
            await self.write_late()
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
        """Durable on return, unless the disk takes nothing now: then as soon as it does, if the command did something;
        else it is judged again. The first outcome of a command counts."""
        row = self._row(content, outcome)
        if self._catalog is None:
            return
        if outcome.outcome in _NOTHING_DONE:  # a client can send any number of these
            with contextlib.suppress(WireError):
                await self._catalog.write(lambda db: _insert(db, row))
            return
        self._late[outcome.command_id] = row
        with contextlib.suppress(WireError):
            try:
                await self.write_late()
            except NoSpace:
                if await self._catalog.make_room():
                    await self.write_late()
        if self._late:
            self._news.set()

    async def keep(self) -> None:
        """Writes late outcomes until it is cancelled; wakes up only while there are some. Else a kill would lose what a
        client was told, and the command would be carried out again."""
        while True:
            if not self._late:
                self._news = anyio.Event()
                await self._news.wait()
            await anyio.sleep(LATE_SECONDS)
            with contextlib.suppress(WireError):
                await self.write_late()

    async def write_late(self) -> None:
        """Raises what the disk says when it still takes nothing."""
        if self._catalog is not None and (late := dict(self._late)):
            await self._catalog.write(lambda db: _insert_all(db, late.values()))
            self._late = {id_: row for id_, row in self._late.items() if late.get(id_) is not row}

    def note(self, content: str, outcome: Updated) -> None:
        """From any thread and without waiting: it is committed with what is written next, or with the next record that
        succeeds."""
        row = self._row(content, outcome)
        if self._catalog is not None:
            self._late[outcome.command_id] = row
        self._post(row)

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
        _insert_all(db, tuple(self._newest))


def _insert_all(db: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    for row in rows:
        _insert(db, row)


def _insert(db: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    db.execute(_INSERT, row)
    db.execute(_PRUNE, (row[3], KEPT))
