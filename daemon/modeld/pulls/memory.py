"""What pulls learned from sources, kept in the catalogue: fetching again restores it, so losing it costs only work.

It holds the model that a reference stood for when its source was last asked, for pulls without a network; the digest
of a file whose source reports none, for as long as the source reports the same version; and the sources of wrong bytes.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import astuple
from typing import Any, Final

import msgspec

from modeld.download.routes.condemned import Condemnation, Condemned
from modeld.download.source import FileInfo
from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.tables import Tables
from modeld.store.digest import Digest
from modelwire.errors import WireError

ROOM: Final = "pulling"

STEPS: Final = (
    """
    CREATE TABLE meanings (reference TEXT PRIMARY KEY, meaning BLOB NOT NULL, time REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE seen (version TEXT PRIMARY KEY, digest TEXT NOT NULL, time REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE condemned_sources (
        source TEXT NOT NULL, digest TEXT NOT NULL, validator TEXT, PRIMARY KEY (source, digest)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE condemned_sources ADD COLUMN time REAL NOT NULL DEFAULT 0;
    UPDATE condemned_sources SET time = CAST(strftime('%s', 'now') AS REAL);
    """,
)

_CONDEMNATIONS: Final = "SELECT source, digest, validator FROM condemned_sources"


class RemoteFile(msgspec.Struct, frozen=True):
    path: str
    digest: str
    """64 hex."""

    role: str | None = None


class RemoteModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference stands for at its source. As remembered it is complete, with the digest of each file."""

    registry: str = ""
    repo: str = ""
    revision: str = ""
    license: str | None = None
    files: tuple[RemoteFile, ...] = ()
    said: bool = True
    """Whether the source says so. A digest in a request names bytes, and is no word of a source."""

    @property
    def infos(self) -> list[FileInfo]:
        return [FileInfo(path=file.path, locator="", digest=Digest(file.digest), role=file.role) for file in self.files]


class Memory:
    """While the catalogue cannot be used, it remembers nothing and fails no pull."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._tables = Tables(catalog, ROOM, STEPS)
        self.condemned = Condemned(
            [Condemnation(*row) for row in self._tables.load(_CONDEMNATIONS)], self._write_condemnation
        )

    async def model(self, reference: str) -> RemoteModel | None:
        for (found,) in await self._tables.rows("SELECT meaning FROM meanings WHERE reference = ?", reference):
            with contextlib.suppress(msgspec.MsgspecError):
                return msgspec.json.decode(found, type=RemoteModel)
        return None

    async def remember_model(self, reference: str, model: RemoteModel) -> None:
        row = (reference, msgspec.json.encode(model), time.time())
        await self._tables.write(lambda db: db.execute("INSERT OR REPLACE INTO meanings VALUES (?, ?, ?)", row))

    async def digest(self, version: str) -> Digest | None:
        rows = await self._tables.rows("SELECT digest FROM seen WHERE version = ?", version)
        return Digest(rows[0][0]) if rows else None

    async def remember_digest(self, version: str, digest: Digest) -> None:
        row = (version, digest.hex, time.time())
        await self._tables.write(lambda db: db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", row))

    async def prune(self, now: float, keep: float) -> int:
        """Forgets what was neither learned nor used for `keep` seconds, and returns the number of rows.

        Pulls then learn it again: they ask for a reference, fetch a file without a digest, and give a source of wrong
        bytes another chance.
        """
        before = (now - keep,)

        def forget(db: sqlite3.Connection) -> tuple[int, list[Any]]:
            pardoned = db.execute(f"{_CONDEMNATIONS} WHERE time < ?", before).fetchall()
            count = db.execute("DELETE FROM condemned_sources WHERE time < ?", before).rowcount
            count += db.execute("DELETE FROM meanings WHERE time < ?", before).rowcount
            return count + db.execute("DELETE FROM seen WHERE time < ?", before).rowcount, pardoned

        count, rows = await self._catalog.write(forget)
        for row in rows:
            self.condemned.pardon(Condemnation(*row))
        return count

    def _write_condemnation(self, condemnation: Condemnation, holds: bool) -> None:
        """Blocks until it is durable: byte threads call it."""
        row = (*astuple(condemnation), time.time())

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM condemned_sources WHERE source = ? AND digest = ?", row[:2])
            if holds:
                db.execute("INSERT INTO condemned_sources VALUES (?, ?, ?, ?)", row)

        with contextlib.suppress(WireError):
            self._catalog.call(write)
