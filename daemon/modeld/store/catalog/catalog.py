"""The catalogue: one SQLite file, one thread that owns it, all waiting calls committed together.

A caller passes a function of the connection and gets its value when that is durable. Durability
costs one fsync for each commit, not for each call: calls that come while a commit runs share the
next one. Each function has a savepoint of its own, so a function that fails undoes only its own
writes.

Rules for a function: it may run twice (when SQLite rolls the whole transaction back because of
another function), so it changes nothing but the database; and it begins and ends no transaction.

Another program may remove or cut the write-ahead log, which holds what was committed last. The owner
looks for that before each batch: it saves what SQLite still has, opens the file anew, and lets the
components write again what they have in memory.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import anyio.to_thread
import structlog

from modeld.store.catalog.calls import Call, deliver
from modeld.store.catalog.catalog_file import condemn, file_at, open_or_replace, translated, vanished
from modeld.store.catalog.write_ahead_log import PARTED, WriteAheadLog, part_from_log
from modeld.store.disk import durable
from modelwire.errors import Corrupt, Interrupted, LocalError, Unsupported

log = structlog.get_logger("modeld.catalog")

T = TypeVar("T")

_STEPS_TABLE = """
CREATE TABLE IF NOT EXISTS schema_steps (
    room TEXT NOT NULL, step INTEGER NOT NULL, applied_at REAL NOT NULL, PRIMARY KEY (room, step)
) WITHOUT ROWID
"""


# Their texts differ from any statement of a function: the statement cache goes by text, and the authorizer
# sees only statements that are not in it.
_BEGIN, _COMMIT, _ROLLBACK = "BEGIN IMMEDIATE -- owner", "COMMIT -- owner", "ROLLBACK"


class Catalog:
    """Safe to use from any thread; `write` and `read` from the event loop, `call` and `look` from elsewhere."""

    def __init__(
        self, path: str, connection: sqlite3.Connection, set_aside: str | None, make_room: Callable[[], bool]
    ) -> None:
        self.path = path
        self._make_room = make_room
        self.set_aside = set_aside
        """Where a damaged file was moved to, for the message at start."""
        self._rooms: dict[str, Sequence[str]] = {}
        self._rewrites: list[Callable[[sqlite3.Connection], None]] = []
        self._is_open = self._is_whole = True
        """Whether the connection is open, and whether the file has what the components have in memory."""
        self._inside = False
        self._use(connection)
        self._waiting: list[Call] = []
        self._changed = threading.Condition()
        self._closed = False
        self._owner = threading.Thread(target=self._own, name="catalog", daemon=True)
        self._owner.start()

    @classmethod
    def open(cls, path: str, make_room: Callable[[], bool] = lambda: False) -> Catalog:
        """Blocking. The directory must exist. Raises typed errors of one line. `make_room` frees some of a full disk,
        for what must be recorded; it blocks, and returns whether it did."""
        connection, set_aside = open_or_replace(path)
        with contextlib.suppress(OSError):
            durable.remove(path + PARTED)
        return cls(path, connection, set_aside, make_room)

    def migrate(self, room: str, steps: Sequence[str]) -> None:
        """Brings a room's tables to the last of its steps; all missing steps succeed together or not at all.

        Steps are only ever appended. A catalogue of a newer modeld is refused rather than guessed at.
        """

        self.call(lambda connection: self._apply(connection, room, steps))
        self._rooms[room] = steps

    def on_loss(self, rewrite: Callable[[sqlite3.Connection], None]) -> None:
        """Registers a function that writes again what a component has in memory. The owner thread calls it when the
        file may have lost what was committed last; it can find any earlier state, and must be able to run twice."""
        self._rewrites.append(rewrite)

    def _apply(self, connection: sqlite3.Connection, room: str, steps: Sequence[str]) -> None:
        connection.execute(_STEPS_TABLE)
        (done,) = connection.execute(
            "SELECT coalesce(max(step), 0) FROM schema_steps WHERE room = ?", (room,)
        ).fetchone()
        if done > len(steps):
            raise Unsupported(
                f"the catalogue {self.path} has version {done} of its {room} tables, this modeld knows {len(steps)}",
                hint="Run the newer modeld, or move the catalogue away: history is lost, models are kept.",
                details={"room": room, "found": done, "known": len(steps)},
            )
        for number, step in enumerate(steps[done:], done + 1):
            for statement in _statements(step):
                connection.execute(statement)
            connection.execute("INSERT INTO schema_steps VALUES (?, ?, ?)", (room, number, time.time()))

    async def write(
        self, function: Callable[[sqlite3.Connection], T], committed: Callable[[T], None] | None = None
    ) -> T:
        """Runs and commits the function. A caller that is cancelled meanwhile does not undo it.

        The owner thread calls `committed` with the value, before any later function runs.
        """
        return await self._ask(function, writes=True, committed=committed)

    async def make_room(self) -> bool:
        """Call it when a full disk does not take what must be recorded; it can be tried once more if this is true."""
        return await anyio.to_thread.run_sync(self._make_room)

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Sees every earlier write. A function that writes is refused."""
        return await self._ask(function, writes=False)

    def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """`write` for start-up and other threads: blocks until durable."""
        return self._wait_for(function, writes=True)

    def look(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """`read` for other threads: blocks."""
        return self._wait_for(function, writes=False)

    def post(self, function: Callable[[sqlite3.Connection], None]) -> None:
        """`write` without waiting for it. The outcome is lost."""
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._submit(Call(function, writes=True, future=future, loop=None))

    async def move(self, copy: Callable[[sqlite3.Connection], None], switch: Callable[[], None]) -> None:
        """Goes on with another file. `copy` makes it, from the file as all earlier calls left it; `switch` makes the
        path lead to it. Later calls see the new file, or, when one of the two fails, the old one."""

        def move() -> None:
            copy(self._connection)
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            # SQLite removes the log by its path, which must not lead to the other file by then.
            self._log.close()
            self._connection.close()
            self._is_open = False
            try:
                switch()
            finally:
                self._open_again()

        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._submit(Call(lambda _: None, writes=False, future=future, loop=loop, alone=move))
        await asyncio.shield(future)

    def give_back(self) -> None:
        """Frees the pages of the file that SQLite keeps in memory, two megabytes after much work. Blocks."""
        self.look(lambda connection: connection.execute("PRAGMA shrink_memory").close())

    def _wait_for(self, function: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        if threading.current_thread() is self._owner:
            raise LocalError("a catalogue function called the catalogue: it would wait for itself")
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._submit(Call(function, writes=writes, future=future, loop=None))
        return future.result()

    def close(self) -> None:
        """Blocking: finishes earlier calls, refuses later ones. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._owner.join()

    async def _ask(
        self,
        function: Callable[[sqlite3.Connection], T],
        *,
        writes: bool,
        committed: Callable[[T], None] | None = None,
    ) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._submit(Call(function, writes, future, loop, committed))
        return await future

    def _submit(self, call: Call) -> None:
        with self._changed:
            if self._closed:
                raise Interrupted("the catalogue is closed: the daemon is stopping")
            self._waiting.append(call)
            if len(self._waiting) == 1:
                self._changed.notify()

    def _own(self) -> None:
        """The owner thread. Nothing raised by a function or by SQLite ends it."""
        while batch := self._next_batch():
            try:
                self._mend()
            except Exception as error:  # noqa: BLE001 - nothing is admitted to a file that cannot keep it
                for call in batch:
                    call.error = self._translated(error)
                deliver(batch)
                continue
            if batch[0].alone is not None:
                self._run_alone(batch[0], batch[0].alone)
                continue
            writes = [call for call in batch if call.writes]
            if writes:
                self._commit(writes)
                self._log.note()
                deliver(writes)
            if len(writes) < len(batch):
                reads = [call for call in batch if not call.writes]
                self._read(reads)
                deliver(reads)
        with contextlib.suppress(Exception):  # a cut log must not get into the file as it is closed
            self._mend()
        self._connection.close()
        self._log.close()

    def _use(self, connection: sqlite3.Connection) -> None:
        connection.set_authorizer(self._authorize)
        self._connection = connection
        self._file = file_at(self.path)
        self._log = WriteAheadLog(self.path)

    def _mend(self) -> None:
        """Opens the file anew when another program has removed or cut its log, and completes it from memory. Raises
        what prevents that; the next call tries again. A file that was itself replaced is left to `_commit`."""
        cut = self._log.is_cut()
        if (cut or self._log.is_unnamed()) and file_at(self.path) == self._file:
            log.error("another program has damaged the catalogue's log", path=self.path, cut=cut)
            if cut:
                part_from_log(self.path)
            else:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._log.close()
            self._connection.close()
            self._is_open = self._is_whole = False
        if not self._is_open:
            with durable.store_faults("sync the directory of", self.path):
                durable.sync_directory(os.path.dirname(self.path))
            self._open_again()
        if not self._is_whole:
            self._write_again()
            self._is_whole = True

    def _open_again(self) -> None:
        """Without a sound file a new one takes its place, which has nothing of what the components have in memory."""
        connection, set_aside = open_or_replace(self.path)
        self._use(connection)
        self._is_open = True
        if set_aside is not None:
            log.error("the catalogue was damaged and has been set aside", path=self.path, set_aside=set_aside)
            self._is_whole = False

    def _write_again(self) -> None:
        connection = self._connection
        connection.execute(_BEGIN)
        try:
            for room, steps in self._rooms.items():
                self._apply(connection, room, steps)
            for rewrite in self._rewrites:
                rewrite(connection)
            connection.execute(_COMMIT)
        except BaseException:
            if connection.in_transaction:
                connection.execute(_ROLLBACK)
            raise
        self._log.note()

    def _next_batch(self) -> list[Call]:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            # One that runs alone is a batch of its own.
            count = next((at for at, call in enumerate(self._waiting) if call.alone is not None), len(self._waiting))
            count = max(count, min(1, len(self._waiting)))
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
            return batch

    def _run_alone(self, call: Call, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller, whatever it is
            call.error = self._translated(error)
        deliver([call])

    def _commit(self, calls: list[Call]) -> None:
        """One transaction for all. When SQLite rolls it back, each call runs again in a transaction of its own."""
        connection = self._connection
        try:
            connection.execute(_BEGIN)
            for call in calls:
                self._run_in_savepoint(call)
                if not connection.in_transaction:
                    raise _TransactionLost
            if file_at(self.path) != self._file:
                connection.execute(_ROLLBACK)
                for call in calls:
                    call.value, call.error = None, call.error or vanished(self.path)
                return
            connection.execute(_COMMIT)
            for call in calls:
                if call.error is None and call.committed is not None:
                    call.committed(call.value)
        except (_TransactionLost, sqlite3.Error) as error:
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute(_ROLLBACK)
            # The space may suffice for the small calls. After a failed fsync no call runs again:
            # the kernel may have dropped the pages and a second fsync would report success.
            lost_by_one = isinstance(error, _TransactionLost) or _is_full(error)
            if len(calls) > 1 and lost_by_one:
                for call in calls:
                    call.value = call.error = None
                    self._commit([call])
            elif isinstance(error, sqlite3.Error):
                for call in calls:
                    call.error = self._translated(error)

    def _run_in_savepoint(self, call: Call) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT one")
        try:
            self._inside = True
            call.value = call.run(connection)
            self._inside = False
            connection.execute("RELEASE one")
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller, whatever it is
            self._inside = False
            call.value, call.error = None, self._translated(error)
            if connection.in_transaction:
                connection.execute("ROLLBACK TO one")
                connection.execute("RELEASE one")

    def _read(self, calls: list[Call]) -> None:
        connection = self._connection
        connection.execute("PRAGMA query_only = ON")
        for call in calls:
            try:
                call.value = call.run(connection)
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller, whatever it is
                refused = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY
                call.error = LocalError("a catalogue read tried to write") if refused else self._translated(error)
        connection.execute("PRAGMA query_only = OFF")

    def _authorize(self, action: int, *_: str | None) -> int:
        refused = self._inside and action == sqlite3.SQLITE_TRANSACTION
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    def _translated(self, error: BaseException) -> BaseException:
        """The error that the caller gets."""
        if isinstance(error, sqlite3.Error):
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_AUTH:
                return LocalError("a catalogue function began or ended a transaction: it shares one with others")
            typed = translated(error, self.path)
            if isinstance(typed, Corrupt):
                condemn(self.path)
            return typed
        if isinstance(error, StopIteration):
            # No future accepts this one, and the caller would wait for ever.
            return LocalError("a catalogue function let a StopIteration out")
        return error


class _TransactionLost(Exception):
    """SQLite rolled the whole transaction back because of one statement in it."""


def _is_full(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _statements(script: str) -> Iterator[str]:
    """`executescript` would commit first, so a script is cut into its statements here."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
