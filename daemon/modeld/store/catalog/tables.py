"""One component's tables in the catalogue, for data whose loss costs only work.

Without a readable catalogue every read returns nothing; a full disk never fails work that has succeeded.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from modeld.store.catalog.catalog import Catalog
from modelwire.errors import WireError

_VALUES: Final = 500
"""SQLite takes at least 999 values in one statement."""


class Tables:
    """The constructor migrates the tables to the last of `steps`."""

    def __init__(self, catalog: Catalog | None, room: str, steps: Sequence[str]) -> None:
        self._catalog = catalog
        if catalog is not None:
            catalog.migrate(room, steps)

    def load(self, query: str) -> list[Any]:
        """All rows, at start: blocks, and raises what the catalogue raises."""
        return [] if self._catalog is None else self._catalog.call(lambda db: db.execute(query).fetchall())

    def look_among(self, query: str, among: Sequence[str]) -> list[Any]:
        """`rows_among` for threads: blocks."""
        if self._catalog is not None and among:
            with contextlib.suppress(WireError):
                return self._catalog.look(lambda db: select_among(db, query, among))
        return []

    async def read(self, function: Callable[[sqlite3.Connection], list[Any]]) -> list[Any]:
        if self._catalog is not None:
            with contextlib.suppress(WireError):
                return await self._catalog.read(function)
        return []

    async def rows(self, query: str, *values: str | int) -> list[Any]:
        return await self.read(lambda db: db.execute(query, values).fetchall())

    async def rows_among(self, query: str, among: Sequence[str]) -> list[Any]:
        """As `select_among`."""
        return await self.read(lambda db: select_among(db, query, among)) if among else []

    async def write(self, change: Callable[[sqlite3.Connection], object]) -> None:
        def write(db: sqlite3.Connection) -> None:
            change(db)  # not what it returns: a cursor that outlives the connection keeps the file locked

        if self._catalog is not None:
            with contextlib.suppress(WireError):
                await self._catalog.write(write)

    def post(self, change: Callable[[sqlite3.Connection], object]) -> None:
        """As `write`, from any thread and without waiting: what it writes is committed with what is written next."""

        def write(db: sqlite3.Connection) -> None:
            change(db)

        if self._catalog is not None:
            with contextlib.suppress(WireError):
                self._catalog.post(write)


def select_among(db: sqlite3.Connection, query: str, among: Sequence[str], *more: str | int) -> list[Any]:
    """Of a query with `{}` where the list of `among` stands, before the placeholders of `more`."""
    found: list[Any] = []
    for first in range(0, len(among), _VALUES):
        some = among[first : first + _VALUES]
        found += db.execute(query.format(", ".join("?" * len(some))), (*some, *more)).fetchall()
    return found
