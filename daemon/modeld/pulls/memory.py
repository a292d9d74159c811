"""What was learned from sources, kept in the catalogue: rebuilt by fetching again, so nothing here is vital.

What a reference meant: asked without a network, it means that still. What a file without a digest turned out to be, as
long as its source says that it is the same version. And who gave wrong bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from typing import Any, Final

import msgspec

from modeld.download.routes.condemned import Condemnation, Condemned
from modeld.store.catalog.catalog import Catalog
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


class MeantFile(msgspec.Struct, frozen=True):
    path: str
    digest: str
    """64 hex."""

    size: int
    role: str | None = None


class Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference stood for when it was last asked: complete, with the digest of each file."""

    registry: str = ""
    repo: str = ""
    revision: str = ""
    license: str | None = None
    files: tuple[MeantFile, ...] = ()


def version_of(giver: str, locator: str, validator: str) -> str:
    """One version of one file at one source. Hashed: an address may be long, and may say more than it should."""
    return hashlib.sha256(f"{giver}\0{locator}\0{validator}".encode("utf-8", "surrogatepass")).hexdigest()


class Memory:
    """A catalogue that cannot be used just now makes it forgetful, and no pull fail."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        catalog.migrate(ROOM, STEPS)
        rows = catalog.call(lambda db: db.execute("SELECT source, digest, validator FROM condemned_sources").fetchall())
        self.condemned = Condemned([Condemnation(*row) for row in rows], self._on_change)

    async def meaning(self, reference: str) -> Meaning | None:
        found = await self._look_up("SELECT meaning FROM meanings WHERE reference = ?", reference)
        with contextlib.suppress(msgspec.MsgspecError):
            return None if found is None else msgspec.json.decode(found, type=Meaning)
        return None

    async def meant(self, reference: str, meaning: Meaning) -> None:
        row = (reference, msgspec.json.encode(meaning), time.time())
        await self._write("INSERT OR REPLACE INTO meanings VALUES (?, ?, ?)", row)

    async def seen(self, version: str) -> Digest | None:
        found = await self._look_up("SELECT digest FROM seen WHERE version = ?", version)
        return None if found is None else Digest(found)

    async def saw(self, version: str, digest: Digest) -> None:
        await self._write("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (version, digest.hex, time.time()))

    async def prune(self, now: float, keep: float) -> int:
        """Forgets what was neither learned nor used for so long; how much that was.

        Then it is learned once more: a reference is asked again, a file without a digest fetched again, and whoever
        gave wrong bytes gets another chance to give the right ones.
        """
        before = (now - keep,)

        def forget(db: sqlite3.Connection) -> tuple[int, list[Any]]:
            pardoned = db.execute("SELECT source, digest, validator FROM condemned_sources WHERE time < ?", before)
            rows = pardoned.fetchall()
            db.execute("DELETE FROM condemned_sources WHERE time < ?", before)
            meanings = db.execute("DELETE FROM meanings WHERE time < ?", before).rowcount
            return len(rows) + meanings + db.execute("DELETE FROM seen WHERE time < ?", before).rowcount, rows

        count, rows = await self._catalog.write(forget)
        for row in rows:
            self.condemned.pardon(Condemnation(*row))
        return count

    async def _look_up(self, query: str, key: str) -> Any:
        with contextlib.suppress(WireError):
            row = await self._catalog.read(lambda db: db.execute(query, (key,)).fetchone())
            return None if row is None else row[0]
        return None

    async def _write(self, statement: str, row: tuple[object, ...]) -> None:
        def write(db: sqlite3.Connection) -> None:
            db.execute(statement, row)

        with contextlib.suppress(WireError):
            await self._catalog.write(write)

    def _on_change(self, condemnation: Condemnation, holds: bool) -> None:
        """From byte threads: there is time."""
        source, digest, validator = condemnation.source, condemnation.digest, condemnation.validator

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM condemned_sources WHERE source = ? AND digest = ?", (source, digest))
            if holds:
                row = (source, digest, validator, time.time())
                db.execute("INSERT INTO condemned_sources VALUES (?, ?, ?, ?)", row)

        with contextlib.suppress(WireError):
            self._catalog.call(write)
