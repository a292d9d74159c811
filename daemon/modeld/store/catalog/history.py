"""The outcome of each verification of the blobs that models name: which blob, when, for which user and job, from which
source, against which digest, by which tool.

For a blob that was found bad it keeps the reason, which each model that names the blob reports.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.tables import Tables, select_among
from modeld.store.digest import Digest
from modeld.store.names import ModelName
from modeld.store.parts import printable
from modelwire.values import Provenanced
from modelwire.version import __version__

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
    "ALTER TABLE outcomes ADD COLUMN details TEXT;",
    "CREATE INDEX outcomes_job ON outcomes (job) WHERE model IS NOT NULL;",
    "CREATE INDEX outcomes_mismatch ON outcomes (model) WHERE outcome = 'mismatch' AND model IS NOT NULL;",
)

TOOL: Final = f"modeld/{__version__}"

ID: Final = "id"
"""The detail of an outcome that has the id of what was to be ensured."""

REGISTERED: Final = "registered"
"""An existing file became known by an id. It does not say that what the reference of this id names has these bytes."""

UNCHECKED: Final[Literal["unchecked"]] = "unchecked"
"""No digest was expected."""

_NO_MODEL: Final = ""
"""In place of a model's name: the outcome is of no model, and of no blob either."""

SHOWN: Final = 100
"""Outcomes of one model in an answer, the newest. The catalogue keeps as many of each kind of outcome of a blob, and
all that say where its bytes came from."""

MOST_SHOWN: Final = 10_000
"""In an answer that is asked for them: 6 MB, where a reply may have 8. A model of 4,000 files has so many each time
that it is added or verified."""

_SHOWN_COLUMNS: Final = "id, digest, time, outcome, expected, actual, peer, source, tool, job, served, details"
_OF_BLOBS: Final = (
    f"SELECT {_SHOWN_COLUMNS} FROM outcomes WHERE digest IN ({{}}) AND model IS NULL ORDER BY id DESC LIMIT ?"  # noqa: S608
)
_SURPLUS: Final = (
    "DELETE FROM outcomes WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER"
    " (PARTITION BY digest, model, outcome ORDER BY id DESC) AS number FROM outcomes"
    " WHERE outcome NOT IN ('added', 'repaired')) WHERE number > ?)"
)
_INSERT: Final = (
    "INSERT INTO outcomes (digest, time, outcome, expected, actual, peer, source, tool, job, model, served, details)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SAME: Final = (0, 2, 3, 4, 9)
"""Of a row to insert: the columns that _ENSURED reads."""
_ENSURED: Final = "SELECT digest, outcome, expected, actual, model FROM outcomes WHERE job = ? AND model IS NOT NULL"
_FORGET_ENSURED: Final = "DELETE FROM outcomes WHERE job = ? AND model IS NOT NULL"
_FORGET: Final = "DELETE FROM outcomes WHERE model = ?"
_FORGET_OTHERS: Final = f"{_FORGET} AND (?2 IS NULL OR job IS NOT ?2)"
_FORGET_ATTEMPT: Final = f"{_FORGET} AND job = ? AND outcome = ?"
_MISMATCHED: Final = "SELECT DISTINCT model FROM outcomes WHERE outcome = 'mismatch' AND model IN ({})"
_OF_NAME: Final = f"SELECT {_SHOWN_COLUMNS} FROM outcomes WHERE model = ? ORDER BY id DESC LIMIT ?"  # noqa: S608


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`outcome` is one of added, repaired, verified, checked (by checksums alone), mismatch, corrupt, missing,
    unreadable, signed, signature_invalid, registered; match and unchecked say of what a reference gave whether it was
    expected.

    `model` is set when bytes were offered for a name and refused, when a signature was verified, and when a file was
    registered: the outcome belongs to that name alone, and appears in the history of no other model, whatever blob was
    expected. An outcome `of_no_model` appears in none: bytes were refused before a model had them.
    """

    digest: Digest
    outcome: str
    actual: Digest | None = None
    source: str | None = None
    model: ModelName | None = None
    of_no_model: bool = False
    served: Mapping[str, int] | None = None
    """Bytes from each source, when they came over a network."""

    details: Mapping[str, str | bool] | None = None
    """What else an outcome of its kind says, such as who signed."""


class Quota(msgspec.Struct, frozen=True):
    """What the models of one user may have; None for no limit."""

    user: int
    counts: Callable[[int], bool]
    """Whether the models of an owner are those of the user."""

    bytes: int | None
    models: int | None


class Requester(msgspec.Struct, frozen=True):
    """On whose behalf the store works: the user who sent the request, and its job."""

    peer: int | None = None
    job: str | None = None
    all_models: bool = False
    """Whether it may change the models of other users too."""

    share: int | None = None
    """The user whose share of the space its unfinished files take; None when they may take all."""

    quota: Quota | None = None
    """None when its models may have all that fits."""

    def may_change(self, owner: int | None) -> bool:
        """Whether it may remove, rename or replace a model of this owner; None when the owner is not known."""
        return self.all_models or self.peer is None or self.peer == owner


THE_DAEMON: Final = Requester()
"""For work without a request."""


class Condemned(msgspec.Struct, frozen=True):
    """Why a blob was set aside, and its path in the quarantine."""

    reason: str
    kept_at: str | None = None

    @property
    def sentence(self) -> str:
        return self.reason if self.kept_at is None else f"{self.reason}; the bytes are kept at {self.kept_at}"


class History:
    """Without a catalogue it knows only the condemned blobs of this run."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._tables = Tables(catalog, ROOM, STEPS)
        self._condemned = {
            digest: Condemned(reason, kept_at)
            for digest, reason, kept_at in self._tables.load("SELECT digest, reason, kept_at FROM condemned")
        }
        if catalog is not None:
            catalog.on_loss(self._write_condemned)

    # -- outcomes

    async def record(self, outcomes: Iterable[Outcome], requester: Requester = THE_DAEMON) -> None:
        rows = _rows(outcomes, requester)
        await self._tables.write(lambda db: db.executemany(_INSERT, rows))

    async def record_ensured(self, outcome: Outcome, requester: Requester) -> None:
        """Records what a reference was found to give. A job has one such outcome: the same one of an interrupted
        attempt stays, which may have read what this one found, and another one goes, maybe of another name."""
        (row,) = _rows([outcome], requester)
        same = [row[at] for at in _SAME]

        def write(db: sqlite3.Connection) -> None:
            if same not in map(list, db.execute(_ENSURED, (requester.job,)).fetchall()):
                db.execute(_FORGET_ENSURED, (requester.job,))
                db.execute(_INSERT, row)

        await self._tables.write(write)

    async def forget_ensured(self, requester: Requester) -> None:
        """Forgets what `record_ensured` has recorded for this job: the name did not get those bytes."""
        await self._tables.write(lambda db: db.execute(_FORGET_ENSURED, (requester.job,)))

    def note_new_name(self, name: ModelName, requester: Requester) -> None:
        """Call it before the manifest is written; does not wait, as `note_published`. The name starts without what
        earlier models of it have left, and with what an interrupted attempt of the job has found."""
        self._tables.post(lambda db: db.execute(_FORGET_OTHERS, (name.key, requester.job)))

    def note_published(self, outcomes: Sequence[Outcome], requester: Requester) -> None:
        """Call it before the manifest is written. Does not wait: the next write, the record of the intent of the job,
        commits it too, so a restart that finds the model has nothing to add."""
        rows = _rows(outcomes, requester)
        own = [(each.model.key, requester.job, each.outcome) for each in outcomes if each.model is not None]

        def write(db: sqlite3.Connection) -> None:
            db.executemany(_FORGET_ATTEMPT, own)
            db.executemany(_INSERT, rows)

        self._tables.post(write)

    async def record_refused(
        self, model: ModelName, expected: Digest, actual: Digest, source: str, requester: Requester
    ) -> None:
        """Records that bytes of another digest were offered for the name of a model, which did not change."""
        outcome = Outcome(digest=expected, outcome="mismatch", actual=actual, source=source, model=model)
        await self.record([outcome], requester)

    async def mismatched(self, names: Sequence[ModelName]) -> list[ModelName]:
        """Those for which other bytes than the expected ones ever came."""
        by_key = {name.key: name for name in names}
        return [by_key[key] for (key,) in await self._tables.rows_among(_MISMATCHED, list(by_key))]

    async def made_for(self, name: ModelName, id_: str, content: Digest) -> bool:
        """Whether this content came to the name when it was ensured that what has the id is here."""
        found = await self.of((), name)
        return any(
            (each.details or {}).get(ID) == id_ and each.actual == content.text and each.outcome != REGISTERED
            for each in found
        )

    async def rename(self, old: ModelName, new: ModelName) -> None:
        await self._tables.write(
            lambda db: db.execute("UPDATE outcomes SET model = ? WHERE model = ?", (new.key, old.key))
        )

    async def forget_name(self, name: ModelName) -> None:
        """Forgets what was refused for this name, and its signatures."""
        await self._tables.write(lambda db: db.execute(_FORGET, (name.key,)))

    async def of(self, digests: Iterable[Digest], name: ModelName, most: int | None = None) -> tuple[Provenanced, ...]:
        """The newest outcomes of these blobs and of this name, the oldest of them first; at most SHOWN by default."""
        wanted, most = sorted({digest.hex for digest in digests}), most or SHOWN

        def read(db: sqlite3.Connection) -> list[Any]:
            of_name: list[Any] = db.execute(_OF_NAME, (name.key, most)).fetchall()
            return sorted(of_name + select_among(db, _OF_BLOBS, wanted, most))[-most:]

        return tuple(_shown(row) for row in await self._tables.read(read))

    async def prune(self, before: float, digests: Collection[str], names: Collection[str]) -> None:
        """Forgets what was found before that moment in blobs other than these and for names other than these, and of
        many outcomes of one kind the oldest."""

        def forget(db: sqlite3.Connection) -> None:
            found = db.execute("SELECT DISTINCT digest, model FROM outcomes WHERE time < ?", (before,)).fetchall()
            gone = [(hex_, before) for hex_, model in found if model is None and hex_ not in digests]
            left = [(model, before) for _, model in found if model is not None and model not in names]
            db.executemany("DELETE FROM outcomes WHERE digest = ? AND model IS NULL AND time < ?", gone)
            db.executemany("DELETE FROM outcomes WHERE model = ? AND time < ?", left)
            db.execute(_SURPLUS, (SHOWN,))

        await self._tables.write(forget)
        unnamed = {hex_ for hex_ in self._condemned if hex_ not in digests}
        known = await self._tables.rows_among("SELECT digest FROM outcomes WHERE digest IN ({})", sorted(unnamed))
        await self.clear_condemned([Digest(hex_) for hex_ in unnamed.difference(hex_ for (hex_,) in known)])

    # -- the condemned

    def why(self, digest: Digest) -> Condemned | None:
        """Why a missing blob was set aside; None when that is not known."""
        return self._condemned.get(digest.hex)

    def reason_at(self, path: str) -> str | None:
        """The same as a sentence, by the path of a blob."""
        found = self._condemned.get(os.path.basename(os.path.dirname(path)))
        return None if found is None else found.sentence

    async def condemn(self, digest: Digest, condemned: Condemned) -> None:
        """Call it before the blob is set aside, and again with its new path: a crash in between loses neither."""
        self._condemned[digest.hex] = condemned
        await self._tables.write(
            lambda db: db.execute(
                "INSERT OR REPLACE INTO condemned VALUES (?, ?, ?)", (digest.hex, condemned.reason, condemned.kept_at)
            )
        )

    def _write_condemned(self, db: sqlite3.Connection) -> None:
        rows = [(digest, each.reason, each.kept_at) for digest, each in list(self._condemned.items())]
        db.execute("DELETE FROM condemned")
        db.executemany("INSERT INTO condemned VALUES (?, ?, ?)", rows)

    async def clear_condemned(self, digests: Iterable[Digest]) -> None:
        """Forgets the reasons for these blobs: they are in the store and good."""
        known = [(digest.hex,) for digest in digests if self._condemned.pop(digest.hex, None) is not None]
        if known:
            await self._tables.write(lambda db: db.executemany("DELETE FROM condemned WHERE digest = ?", known))


def added_from(
    source: str, digest: Digest, served: Mapping[str, int] | None = None, version: Mapping[str, str] | None = None
) -> Outcome:
    """The bytes of a blob were read from the source and verified: with the bytes from each of several servers, and
    which version the source said that they are."""
    return Outcome(
        digest=digest, outcome="added", actual=digest, source=source, served=served or None, details=version or None
    )


def _rows(outcomes: Iterable[Outcome], requester: Requester) -> list[tuple[Any, ...]]:
    now = time.time()
    return [
        (
            each.digest.hex,
            now,
            each.outcome,
            None if each.outcome == UNCHECKED else each.digest.text,
            None if each.actual is None else each.actual.text,
            requester.peer,
            None if each.source is None else printable(each.source),
            TOOL,
            requester.job,
            _NO_MODEL if each.of_no_model else None if each.model is None else each.model.key,
            json.dumps(dict(each.served)) if each.served else None,
            json.dumps(dict(each.details)) if each.details else None,
        )
        for each in outcomes
    ]


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(row: tuple[Any, ...]) -> Provenanced:
    _, hex_, moment, outcome, expected, actual, peer, source, tool, job, served, details = row
    return Provenanced(
        time=rfc3339(moment),
        blob=Digest(hex_).text,
        outcome=outcome,
        expected=expected,
        actual=actual,
        peer=peer,
        source=source,
        tool=tool,
        job=job,
        served=None if served is None else json.loads(served),
        details=None if details is None else json.loads(details),
    )
