"""Jobs as they are on disk: written before they are acknowledged, found again after a crash.

A job's request, result and error are JSON that only the caller reads; the ledger has columns for what it searches by.
Every write is durable when it returns, but for `settle`: what has taken place is written as soon as that is possible.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar, get_args

import anyio
import msgspec

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.tables import select_among
from modelwire.errors import AlreadyExists, NoSpace, NotFound
from modelwire.values import Failure
from modelwire.vocabulary import TERMINAL_STATES, JobState, OnDisconnect

T = TypeVar("T")

KEEP_SECONDS = 30 * 24 * 3600.0
"""A month: long enough to look up what happened in the last one."""

ENDED_OF_EACH = 10_000
"""Of each user, the newest: a program that submits in a loop must not fill the disk with records."""

LOOK_EVERY = 1000
"""Jobs of a user that are admitted between two looks for more than that: a look reads the whole table."""

KEPT_ENDS = 256
KEPT_BYTES = 1 << 20
"""Ended jobs that memory has too, until the next checkpoint has surely put them into the file: a thousand pages."""

LATE_SECONDS = 5.0
"""Between two attempts to write what a full disk did not take."""

SCHEMA = (
    """
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        token TEXT,
        peer_uid INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        "order" INTEGER NOT NULL,
        state TEXT NOT NULL,
        request BLOB NOT NULL,
        model TEXT,
        on_disconnect TEXT NOT NULL,
        created_at REAL NOT NULL,
        started_at REAL,
        ended_at REAL,
        attempts INTEGER NOT NULL,
        result BLOB,
        error BLOB
    );
    CREATE UNIQUE INDEX jobs_by_token ON jobs (peer_uid, token) WHERE token IS NOT NULL;
    CREATE INDEX jobs_by_state ON jobs (state, id);
    CREATE INDEX jobs_by_end ON jobs (ended_at) WHERE ended_at IS NOT NULL;
    CREATE INDEX jobs_by_order ON jobs ("order");
    """,
    # A job that several requests share has a token of each.
    """
    CREATE TABLE joined_tokens (
        peer_uid INTEGER NOT NULL,
        token TEXT NOT NULL,
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        PRIMARY KEY (peer_uid, token)
    ) WITHOUT ROWID;
    CREATE INDEX joined_tokens_by_job ON joined_tokens (job);
    """,
    "ALTER TABLE jobs ADD COLUMN accepted_for TEXT",
)


class TokenTaken(AlreadyExists):
    """Another job of this user has the token already; `details["job"]` is its id."""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row. Times are seconds since 1970; `request`, `result` and `error` are JSON."""

    id: str
    kind: str
    key: str
    peer_uid: int
    priority: int
    order: int
    state: JobState
    request: bytes
    on_disconnect: OnDisconnect
    created_at: float
    token: str | None = None
    model: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    attempts: int = 0
    result: bytes | None = None
    error: bytes | None = None
    accepted_for: str | None = None


_FIELDS = JobRecord.__struct_fields__
_COLUMNS = ", ".join(f'"{name}"' for name in _FIELDS)
_CHANGEABLE = frozenset(_FIELDS) - {"id", "kind", "key", "token", "peer_uid", "created_at", "accepted_for"}
_TERMINAL = ", ".join(f"'{state}'" for state in sorted(TERMINAL_STATES))
_UNFINISHED = ", ".join(f"'{state}'" for state in get_args(JobState) if state not in TERMINAL_STATES)


class Ledger:
    """Async on the event loop; `next_order_now` blocks, for start-up before the loop runs."""

    def __init__(self, catalog: Catalog) -> None:
        """Brings the tables up to date. Blocks."""
        self._catalog = catalog
        catalog.migrate("jobs", SCHEMA)
        self._late: dict[str, dict[str, Any]] = {}
        """By job: changes that have taken place and could not be written. Few: on a full disk only jobs that free
        space are admitted."""
        self._news = anyio.Event()
        self._inserted: Counter[int] = Counter()
        self._memory = Memory()
        catalog.on_loss(self._memory.write_again)

    async def insert(self, record: JobRecord) -> None:
        """Deletes ended jobs of that user when there are too many of them."""
        self._inserted[record.peer_uid] += 1
        surplus = self._inserted[record.peer_uid] % LOOK_EVERY == 0
        await self._write(_inserting(record, surplus=surplus), self._memory.keep)

    async def update(self, id_: str, **changes: Any) -> JobRecord:
        """Returns the row after the change. Raises `NotFound` when there is none."""
        older = self._take_late(id_, changes)
        try:
            row = await self._catalog.write(_updating(id_, changes), self._memory.keep)
        except BaseException:
            self._delay(id_, older)
            raise
        self._take_late(id_, changes)  # an older change that failed meanwhile
        await self.write_late()
        return row

    async def settle(self, id_: str, **changes: Any) -> Exception | None:
        """Records what has taken place and stands, whatever the disk says: a change that cannot be written now is
        written with the next write that succeeds, by `keep`, or by `write_late`. Returns the error that delayed it."""
        error = await self._tried(id_, changes)
        if isinstance(error, NoSpace) and await self._catalog.make_room():
            error = await self._tried(id_, changes)
        if error is not None:
            self._take_late(id_, changes)
            self._delay(id_, changes)
        return error

    async def _tried(self, id_: str, changes: dict[str, Any]) -> Exception | None:
        try:
            await self.update(id_, **changes)
        except Exception as error:  # noqa: BLE001 - the caller logs it
            return error
        return None

    async def keep(self) -> None:
        """Writes late changes until it is cancelled; wakes up only while there are some."""
        while True:
            if not self._late:
                self._news = anyio.Event()
                await self._news.wait()
            await anyio.sleep(LATE_SECONDS)
            await self.write_late()

    async def write_late(self) -> None:
        """Otherwise the next start would run again a job that was reported as cancelled or failed."""
        for id_ in list(self._late):
            changes = self._late.pop(id_, {})
            try:
                await self._catalog.write(_updating(id_, changes), self._memory.keep)
            except NotFound:
                pass  # there is no row that could be wrong
            except BaseException as error:
                self._delay(id_, changes)
                if isinstance(error, Exception):
                    return  # the same fault as before; `settle` has returned it
                raise

    def _delay(self, id_: str, changes: dict[str, Any]) -> None:
        """Keeps changes for later. Those of the same columns that are kept already are newer, and stay."""
        if changes:
            self._late[id_] = changes | self._late.get(id_, {})
            self._news.set()

    def _take_late(self, id_: str, columns: Collection[str]) -> dict[str, Any]:
        """Takes out what newer changes of these columns replace."""
        late = self._late.pop(id_, {})
        self._delay(id_, {name: value for name, value in late.items() if name not in columns})
        return {name: value for name, value in late.items() if name in columns}

    async def get(self, id_: str) -> JobRecord | None:
        rows = await self._catalog.read(_selecting("WHERE id = ?", (id_,)))
        return rows[0] if rows else None

    async def open_jobs(self) -> list[JobRecord]:
        """The jobs that have not ended, in the order of admission."""

        def read(connection: sqlite3.Connection) -> list[JobRecord]:
            rows = _selecting(f"""WHERE state IN ({_UNFINISHED}) ORDER BY "order", id""")(connection)
            for row in rows:
                self._memory.keep(row)
            return rows

        return await self._catalog.read(read)

    async def done_since(self, model: str, moment: float) -> list[JobRecord]:
        """The jobs about this model that were done at `moment` or later, the newest first."""
        return await self._catalog.read(
            _selecting("WHERE ended_at >= ? AND state = 'done' AND model = ? ORDER BY ended_at DESC", (moment, model))
        )

    async def failed_last(self, kinds: Sequence[str], models: Sequence[str]) -> dict[str, str]:
        """Those of the models whose last ended job of these kinds failed, with its message."""
        chosen = ", ".join("?" * len(kinds))
        query = (
            f"SELECT model, state, error FROM jobs WHERE model IN ({{}}) AND kind IN ({chosen})"  # noqa: S608
            " AND ended_at IS NOT NULL ORDER BY ended_at"
        )
        rows = await self._catalog.read(lambda db: select_among(db, query, models, *kinds))
        last = {model: error if state == "failed" else None for model, state, error in rows}
        return {model: msgspec.json.decode(error, type=Failure).message for model, error in last.items() if error}

    async def recent(self, limit: int, state: str | None = None) -> list[JobRecord]:
        """The newest first; ids sort by time."""
        condition, values = ("WHERE state = ?", (state,)) if state is not None else ("", ())
        return await self._catalog.read(_selecting(f"{condition} ORDER BY id DESC LIMIT ?", (*values, limit)))

    async def last_id(self) -> str | None:
        """The greatest id of a job."""
        return await self._catalog.read(lambda db: db.execute("SELECT max(id) FROM jobs").fetchone()[0])

    async def by_token(self, peer_uid: int, token: str) -> JobRecord | None:
        """The job that a request with this token created or joined."""
        rows = await self._catalog.read(_under_token(peer_uid, token))
        return rows[0] if rows else None

    async def join(self, id_: str, peer_uid: int, token: str) -> None:
        """Adds a token to a job. Raises `TokenTaken` when the token stands for another job."""
        await self._write(_joining(id_, peer_uid, token), self._memory.keep_token)

    async def prune(self, now: float, keep: float = KEEP_SECONDS) -> int:
        """Deletes the jobs that ended longer ago than `keep`, and returns their number."""
        return await self._write(_pruning(now - keep))

    def next_order_now(self) -> int:
        """The first admission number that no job has had: where the gate goes on."""
        return self._catalog.call(_next_order)

    async def _write(
        self, function: Callable[[sqlite3.Connection], T], committed: Callable[[T], None] | None = None
    ) -> T:
        value = await self._catalog.write(function, committed)
        await self.write_late()
        return value


def _selecting(rest: str, values: Sequence[Any] = ()) -> Callable[[sqlite3.Connection], list[JobRecord]]:
    def select(connection: sqlite3.Connection) -> list[JobRecord]:
        # The text is put together from constants of this module only.
        rows = connection.execute(f"SELECT {_COLUMNS} FROM jobs {rest}", values)  # noqa: S608
        return [_record(row) for row in rows]

    return select


def _record(row: Sequence[Any]) -> JobRecord:
    return JobRecord(**dict(zip(_FIELDS, row, strict=True)))


class Memory:
    """What the catalogue must not lose with its log: the rows of all open jobs, those of the jobs that ended last, and
    their tokens. Used in the catalogue's own thread, so that it always has what was committed."""

    def __init__(self) -> None:
        self._open: dict[str, JobRecord] = {}
        self._ended: dict[str, JobRecord] = {}
        self._ended_bytes = 0
        self._tokens: dict[str, set[tuple[int, str]]] = {}
        """By job: the tokens of the requests that joined it."""

    def keep(self, row: JobRecord) -> None:
        self._forget(row.id)
        if row.state not in TERMINAL_STATES:
            self._open[row.id] = row
            return
        self._ended[row.id] = row
        self._ended_bytes += _size(row)
        while len(self._ended) > 1 and (len(self._ended) > KEPT_ENDS or self._ended_bytes > KEPT_BYTES):
            oldest = next(iter(self._ended))
            self._forget(oldest)
            self._tokens.pop(oldest, None)

    def keep_token(self, joined: tuple[str, int, str]) -> None:
        id_, peer_uid, token = joined
        if id_ in self._open or id_ in self._ended:
            self._tokens.setdefault(id_, set()).add((peer_uid, token))

    def _forget(self, id_: str) -> None:
        self._open.pop(id_, None)
        if (row := self._ended.pop(id_, None)) is not None:
            self._ended_bytes -= _size(row)

    def write_again(self, connection: sqlite3.Connection) -> None:
        """Completes a file that may be of an earlier moment. A job that is open there and not here has ended since:
        it must not run again, though it is not known any more how it ended."""
        marks = ", ".join("?" * len(_FIELDS))
        values = ", ".join(f'"{name}" = excluded."{name}"' for name in _FIELDS)
        upsert = f"INSERT INTO jobs ({_COLUMNS}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {values}"  # noqa: S608
        for row in (*self._open.values(), *self._ended.values()):
            connection.execute(upsert, msgspec.structs.astuple(row))
        for id_, tokens in self._tokens.items():
            for peer_uid, token in tokens:
                connection.execute("INSERT OR IGNORE INTO joined_tokens VALUES (?, ?, ?)", (peer_uid, token, id_))
        for row in _selecting(f"WHERE state IN ({_UNFINISHED})")(connection):
            if row.id not in self._open:
                lost = Failure(code="interrupted", message=f"how job {row.id} ended was lost with the catalogue's log")
                statement = "UPDATE jobs SET state = 'failed', ended_at = ?, result = NULL, error = ? WHERE id = ?"
                connection.execute(statement, (time.time(), msgspec.json.encode(lost), row.id))


def _size(row: JobRecord) -> int:
    return len(row.request) + len(row.result or b"") + len(row.error or b"")


def _inserting(record: JobRecord, *, surplus: bool) -> Callable[[sqlite3.Connection], JobRecord]:
    values = msgspec.structs.astuple(record)
    marks = ", ".join("?" * len(values))

    def insert(connection: sqlite3.Connection) -> JobRecord:
        if record.token is not None:
            _refuse_taken(connection, record.peer_uid, record.token)
        connection.execute(f"INSERT INTO jobs ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608
        if surplus:
            ended = f"SELECT id FROM jobs WHERE peer_uid = ? AND state IN ({_TERMINAL})"  # noqa: S608
            oldest = f"{ended} ORDER BY id DESC LIMIT -1 OFFSET ?"
            connection.execute(f"DELETE FROM jobs WHERE id IN ({oldest})", (record.peer_uid, ENDED_OF_EACH))  # noqa: S608
        return record

    return insert


def _joining(id_: str, peer_uid: int, token: str) -> Callable[[sqlite3.Connection], tuple[str, int, str]]:
    def join(connection: sqlite3.Connection) -> tuple[str, int, str]:
        _refuse_taken(connection, peer_uid, token, unless=id_)
        connection.execute("INSERT OR IGNORE INTO joined_tokens VALUES (?, ?, ?)", (peer_uid, token, id_))
        return id_, peer_uid, token

    return join


def _under_token(peer_uid: int, token: str) -> Callable[[sqlite3.Connection], list[JobRecord]]:
    return _selecting(
        "WHERE id = (SELECT id FROM jobs WHERE peer_uid = ?1 AND token = ?2"
        " UNION ALL SELECT job FROM joined_tokens WHERE peer_uid = ?1 AND token = ?2)",
        (peer_uid, token),
    )


def _refuse_taken(connection: sqlite3.Connection, peer_uid: int, token: str, unless: str | None = None) -> None:
    for taken in _under_token(peer_uid, token)(connection):
        if taken.id != unless:
            raise TokenTaken(
                f"the token {token!r} belongs to job {taken.id} already",
                hint="Attach to that job, or use a new token for new work.",
                details={"job": taken.id},
            )


def _updating(id_: str, changes: dict[str, Any]) -> Callable[[sqlite3.Connection], JobRecord]:
    if unknown := changes.keys() - _CHANGEABLE:
        raise TypeError(f"these columns of a job do not change: {', '.join(sorted(unknown))}")
    assignments = ", ".join(f'"{name}" = ?' for name in changes) or "id = id"

    def update(connection: sqlite3.Connection) -> JobRecord:
        # The names were checked against the columns above.
        statement = f"UPDATE jobs SET {assignments} WHERE id = ?"  # noqa: S608
        if not connection.execute(statement, (*changes.values(), id_)).rowcount:
            raise NotFound(f"there is no job {id_!r} in the ledger", details={"job": id_})
        return _selecting("WHERE id = ?", (id_,))(connection)[0]

    return update


def _pruning(before: float) -> Callable[[sqlite3.Connection], int]:
    def prune(connection: sqlite3.Connection) -> int:
        statement = f"DELETE FROM jobs WHERE ended_at < ? AND state IN ({_TERMINAL})"  # noqa: S608
        return connection.execute(statement, (before,)).rowcount

    return prune


def _next_order(connection: sqlite3.Connection) -> int:
    (highest,) = connection.execute('SELECT coalesce(max("order"), 0) FROM jobs').fetchone()
    return int(highest) + 1
