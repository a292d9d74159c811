"""Copies of blobs that are good, in a directory that the store is to move to: a copying that is interrupted goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from functools import partial
from typing import Final

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.tables import Tables
from modeld.store.digest import Digest, Signature

ROOM: Final = "copies"

STEPS: Final = (
    """
    CREATE TABLE copy (
        directory TEXT NOT NULL, digest TEXT NOT NULL, signature TEXT NOT NULL, PRIMARY KEY (directory, digest)
    ) WITHOUT ROWID;
    """,
)


class Copies:
    """For the event loop."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._tables = Tables(catalog, ROOM, STEPS)

    async def load(self, directory: str) -> dict[Digest, Signature]:
        """Those of this directory. What is known of others is forgotten: a store moves to one."""
        await self._tables.write(lambda db: db.execute("DELETE FROM copy WHERE directory <> ?", (directory,)))
        found = await self._tables.read(partial(_copies_in, directory))
        return found[0] if found else {}

    async def note(self, directory: str, copies: Mapping[Digest, Signature]) -> None:
        rows = [(directory, digest.hex, signature.text) for digest, signature in copies.items()]
        await self._tables.write(lambda db: db.executemany("INSERT OR REPLACE INTO copy VALUES (?, ?, ?)", rows))


def _copies_in(directory: str, db: sqlite3.Connection) -> list[dict[Digest, Signature]]:
    """In the catalogue's thread: a hundred thousand take a second."""
    rows = db.execute("SELECT digest, signature FROM copy WHERE directory = ?", (directory,))
    return [{Digest(digest): Signature.parse(signature) for digest, signature in rows}]


def forget_all(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM copy")
