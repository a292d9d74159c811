"""What became of each look at bytes, kept for good: which blob, when, for whom, from where, against what, by what.

And of blobs that were found bad: why, so that each model that names one can say what is wrong with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from modeld.store.digest import Digest
from modeld.store.names import ModelName
from modelwire.errors import WireError
from modelwire.values import Added, Provenanced
from modelwire.version import __version__

if TYPE_CHECKING:
    from modeld.store.catalog.catalog import Catalog

ROOM: Final = "history"

STEPS: Final = (
    """
    CREATE TABLE outcomes (
        id INTEGER PRIMARY KEY, digest TEXT NOT NULL, time REAL NOT NULL, outcome TEXT NOT NULL,
        expected TEXT, actual TEXT, peer INTEGER, source TEXT, tool TEXT, job TEXT
    );
    CREATE INDEX outcomes_digest ON outcomes (digest, id);
    CREATE TABLE condemned (digest TEXT PRIMARY KEY, reason TEXT NOT NULL, kept_at TEXT) WITHOUT ROWID;
    """,
    """
    ALTER TABLE outcomes ADD COLUMN model TEXT;
    CREATE INDEX outcomes_model ON outcomes (model, id) WHERE model IS NOT NULL;
    """,
    "ALTER TABLE outcomes ADD COLUMN served TEXT;",
)

TOOL: Final = f"modeld/{__version__}"

SHOWN: Final = 100
"""Outcomes of one model in an answer, the newest. All are kept."""

_AT_ONCE: Final = 500
"""SQLite takes at least 999 values in one statement."""

_SHOWN_COLUMNS: Final = "id, time, outcome, expected, actual, peer, source, tool, job, served"
_OF_BLOBS: Final = (
    f"SELECT {_SHOWN_COLUMNS} FROM outcomes WHERE digest IN ({{}}) AND model IS NULL ORDER BY id DESC LIMIT ?"  # noqa: S608
)
_OF_NAME: Final = f"SELECT {_SHOWN_COLUMNS} FROM outcomes WHERE model = ? ORDER BY id DESC LIMIT ?"  # noqa: S608


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`outcome` is one of added, verified, mismatch, corrupt, missing, unreadable.

    `model` is for what is not of a blob but of a name: bytes that were offered for it and did not become its own. They
    are told of no other model, whatever blob was expected.
    """

    digest: Digest
    outcome: str
    actual: Digest | None = None
    source: str | None = None
    model: ModelName | None = None
    served: Mapping[str, int] | None = None
    """Who gave how many of the bytes, when they came over a network."""


class Asker(msgspec.Struct, frozen=True):
    """On whose behalf bytes are looked at."""

    peer: int | None = None
    job: str | None = None


NOBODY: Final = Asker()


class Condemned(msgspec.Struct, frozen=True):
    """Why a blob was taken away, and where it lies now."""

    reason: str
    kept_at: str | None = None

    @property
    def sentence(self) -> str:
        return self.reason if self.kept_at is None else f"{self.reason}; the bytes are kept at {self.kept_at}"


class History:
    """Without a catalogue only what is condemned is known, and as long as the process lasts."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._catalog = catalog
        self._condemned: dict[str, Condemned] = {}
        if catalog is not None:
            catalog.migrate(ROOM, STEPS)
            rows = catalog.call(lambda db: db.execute("SELECT digest, reason, kept_at FROM condemned").fetchall())
            self._condemned = {digest: Condemned(reason, kept_at) for digest, reason, kept_at in rows}

    # -- outcomes

    async def record(self, outcomes: Iterable[Outcome], asker: Asker = NOBODY) -> None:
        """A full disk must not make work fail that has succeeded."""
        now = time.time()
        rows = [
            (
                each.digest.hex,
                now,
                each.outcome,
                each.digest.text,
                None if each.actual is None else each.actual.text,
                asker.peer,
                each.source,
                TOOL,
                asker.job,
                None if each.model is None else each.model.key,
                json.dumps(dict(each.served)) if each.served else None,
            )
            for each in outcomes
        ]
        await self._write(
            lambda db: db.executemany(
                "INSERT INTO outcomes (digest, time, outcome, expected, actual, peer, source, tool, job, model, served)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
        )

    async def arrived(
        self, added: Added, source: str, asker: Asker, served: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        """A model's bytes have just been verified on their way in. `served` is by the digest's text."""
        digests = dict.fromkeys(Digest.parse(text) for text in (*(file.blob for file in added.files), added.blob))
        await self.acquit(digests)
        await self.record(
            [
                Outcome(
                    digest=digest,
                    outcome="added",
                    actual=digest,
                    source=_printable(source),
                    served=(served or {}).get(digest.text),
                )
                for digest in digests
            ],
            asker,
        )

    async def refused(self, model: ModelName, expected: Digest, actual: Digest, source: str, asker: Asker) -> None:
        """Bytes of another digest were offered for the name of a model, which stays what it was."""
        outcome = Outcome(digest=expected, outcome="mismatch", actual=actual, source=_printable(source), model=model)
        await self.record([outcome], asker)

    async def renamed(self, old: ModelName, new: ModelName) -> None:
        await self._write(lambda db: db.execute("UPDATE outcomes SET model = ? WHERE model = ?", (new.key, old.key)))

    async def forget_name(self, name: ModelName) -> None:
        """Whoever has the name next has nothing to do with what was refused for this one."""
        await self._write(lambda db: db.execute("DELETE FROM outcomes WHERE model = ?", (name.key,)))

    async def of(self, digests: Iterable[Digest], name: ModelName) -> tuple[Provenanced, ...]:
        """The newest outcomes of these blobs and of this name, the oldest of them first."""
        if self._catalog is None:
            return ()
        wanted = sorted({digest.hex for digest in digests})

        def read(db: sqlite3.Connection) -> list[Any]:
            found: list[Any] = db.execute(_OF_NAME, (name.key, SHOWN)).fetchall()
            for first in range(0, len(wanted), _AT_ONCE):
                some = wanted[first : first + _AT_ONCE]
                found += db.execute(_OF_BLOBS.format(", ".join("?" * len(some))), (*some, SHOWN)).fetchall()
            return sorted(found)[-SHOWN:]

        with contextlib.suppress(WireError):
            return tuple(_shown(row) for row in await self._catalog.read(read))
        return ()

    # -- the condemned

    def why(self, digest: Digest) -> Condemned | None:
        """Of a blob that is not there: why it was taken away."""
        return self._condemned.get(digest.hex)

    def reason_at(self, path: str) -> str | None:
        """The same in words, for the path of a blob."""
        found = self._condemned.get(os.path.basename(os.path.dirname(path)))
        return None if found is None else found.sentence

    async def condemn(self, digest: Digest, condemned: Condemned) -> None:
        """Before the blob is taken away, and again when it is known where it went: a crash in between loses neither."""
        self._condemned[digest.hex] = condemned
        await self._write(
            lambda db: db.execute(
                "INSERT OR REPLACE INTO condemned VALUES (?, ?, ?)", (digest.hex, condemned.reason, condemned.kept_at)
            )
        )

    async def acquit(self, digests: Iterable[Digest]) -> None:
        """These blobs are here and good."""
        known = [digest.hex for digest in digests if self._condemned.pop(digest.hex, None) is not None]
        if known:
            await self._write(
                lambda db: db.executemany("DELETE FROM condemned WHERE digest = ?", [(each,) for each in known])
            )

    async def _write(self, change: Callable[[sqlite3.Connection], object]) -> None:
        def write(db: sqlite3.Connection) -> None:
            change(db)  # not what it gives back: a cursor that outlives the connection keeps the file locked

        if self._catalog is not None:
            with contextlib.suppress(WireError):
                await self._catalog.write(write)


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _printable(path: str) -> str:
    """Bytes of a path that are no UTF-8 can stand neither in the catalogue nor in JSON."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _shown(row: tuple[Any, ...]) -> Provenanced:
    _, moment, outcome, expected, actual, peer, source, tool, job, served = row
    return Provenanced(
        time=rfc3339(moment),
        blob=expected,
        outcome=outcome,
        expected=expected,
        actual=actual,
        peer=peer,
        source=source,
        tool=tool,
        job=job,
        served=None if served is None else json.loads(served),
    )
