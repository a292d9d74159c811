"""Records of verifications: the stat signature under which a blob was last good, and the digest of a source file.

A blob with an unchanged signature is not hashed again before an add uses it; an unchanged source file is not read
again. There the records only save work: without them the store hashes.

A blob whose signature is another than its last one is hashed before its path is given out. Without a record nothing is
known of a blob, and its bytes are believed, else a store whose catalogue is lost would have to be read whole: from
then on the signature of this run's first look counts.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from modeld.store.blobs.blobs import Blob
from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.tables import Tables
from modeld.store.digest import Digest, Relinked, Signature

ROOM: Final = "store"

STEPS: Final = (
    """
    CREATE TABLE verification (
        digest TEXT PRIMARY KEY, signature TEXT NOT NULL, size INTEGER NOT NULL,
        verified_at REAL NOT NULL, used_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX verification_size ON verification (size);
    CREATE TABLE source (
        id INTEGER PRIMARY KEY AUTOINCREMENT, signature TEXT NOT NULL UNIQUE, digest TEXT NOT NULL
    );
    """,
    "CREATE INDEX verification_signature ON verification (signature)",
    # Sources were remembered also while a program could write to them.
    "DELETE FROM source",
)

KEPT_SOURCES: Final = 10_000
"""A signature takes about 200 bytes; few users add more files than this repeatedly."""

SAME_SIZE: Final = 8
"""Blobs of one size that are compared: fine-tunes of one model often have the same size to the byte."""

_INSERT: Final = (
    "INSERT INTO verification VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (digest) DO UPDATE SET signature = excluded.signature, size = excluded.size,"
)
_USED: Final = (
    _INSERT + " used_at = excluded.used_at,"
    " verified_at = CASE signature WHEN excluded.signature THEN verified_at ELSE excluded.verified_at END"
)
_HASHED: Final = _INSERT + " verified_at = excluded.verified_at"

_SETTLED_NS: Final = 2_000_000_000
"""A file written this shortly ago may be written again under the same times (FAT counts in 2 s)."""


class Records:
    """Verifications and known sources. Without a catalogue they last as long as the process."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._tables = Tables(catalog, ROOM, STEPS)
        self._verified: dict[str, Signature] = {}
        """Of this run, including what a full disk kept from being written."""
        self._unproven: dict[str, Signature] = {}
        """Of blobs that this run has looked at and not found good: as recorded when they differ from it, else as they
        were at the first look."""
        self._loaded: dict[str, Signature | None] = {}
        """Recorded signatures of blobs that this run has not looked at yet."""
        self._copies: dict[str, Signature] = {}
        """Of blobs with the same bytes that may take the places of these at any moment."""
        self._first_look = threading.Lock()
        self._relinking = anyio.Lock()
        """Changes of links are recorded in the order in which they were made."""

    # -- reads

    def known(self, digest: Digest, now: Signature) -> Signature:
        """The signature of the blob as it was last known, to compare with the present one, which is returned at the
        first look at a blob without a record. For any thread but the event loop's: the first look blocks."""
        if self._copies and (copy := self._copies.get(digest.hex)) is not None and copy.is_unchanged(now):
            return copy
        found = self._verified.get(digest.hex) or self._unproven.get(digest.hex)
        if found is not None:
            return found
        with self._first_look:
            self._load([digest.hex])
            recorded = self._loaded.pop(digest.hex, None)
            if recorded is not None and recorded.is_unchanged(now):
                return self._verified.setdefault(digest.hex, now)
            return self._unproven.setdefault(digest.hex, recorded or now)

    def load(self, digests: Iterable[Digest]) -> None:
        """Prepares the first looks at many blobs, together. Blocks."""
        with self._first_look:
            self._load([digest.hex for digest in digests])

    def _load(self, hexes: Iterable[str]) -> None:
        known = self._verified, self._unproven, self._loaded
        missing = [text for text in hexes if not any(text in some for some in known)]
        self._loaded.update(dict.fromkeys(missing))
        rows = self._tables.look_among("SELECT digest, signature FROM verification WHERE digest IN ({})", missing)
        self._loaded.update((text, Signature.parse(signature)) for text, signature in rows)

    async def verified_signatures(self, digests: Iterable[Digest]) -> dict[Digest, Signature]:
        """The signatures of the blobs when their bytes were last found good; blobs without a record are left out."""
        hexes = {digest.hex for digest in digests}
        known = {text: self._verified[text] for text in hexes if text in self._verified}
        rows = await self._tables.rows_among(
            "SELECT digest, signature FROM verification WHERE digest IN ({})", sorted(hexes - set(known))
        )
        known.update((text, Signature.parse(signature)) for text, signature in rows)
        return {Digest(text): signature for text, signature in known.items()}

    def proof(self, digest: Digest) -> Signature | None:
        """The blob's signature when this run found it good. Never waits; for any thread."""
        return self._verified.get(digest.hex)

    def remember(self, digest: Digest, signature: Signature) -> None:
        """Makes a verification that is recorded, or soon will be, a proof of this run. For any thread."""
        self._verified[digest.hex] = signature

    async def verified_at(self, blobs: Sequence[Blob]) -> float | None:
        """The earliest of their last verifications; None unless all of them are unchanged since."""
        rows = await self._tables.rows_among(
            "SELECT digest, signature, verified_at FROM verification WHERE digest IN ({})",
            [blob.digest.hex for blob in blobs],
        )
        known = {digest: (Signature.parse(signature), moment) for digest, signature, moment in rows}
        if not all(
            blob.digest.hex in known and known[blob.digest.hex][0].is_unchanged(blob.signature) for blob in blobs
        ):
            return None
        return min((known[blob.digest.hex][1] for blob in blobs), default=None)

    def hashed_at(self, digests: Sequence[Digest]) -> dict[Digest, float]:
        """When the bytes of blobs were last found good. For threads: blocks."""
        query = "SELECT digest, verified_at FROM verification WHERE digest IN ({})"
        rows = self._tables.look_among(query, [digest.hex for digest in digests])
        return {Digest(digest): moment for digest, moment in rows}

    async def digests_of_sources(self, sources: Sequence[Signature]) -> dict[Signature, Digest]:
        """The digests of files with exactly these signatures; unknown files are left out."""
        texts = {source.text: source for source in sources}
        rows = await self._tables.rows_among(
            "SELECT signature, digest FROM source WHERE signature IN ({})", list(texts)
        )
        return {texts[signature]: Digest(digest) for signature, digest in rows}

    async def digests_of_size(self, size: int) -> list[Digest]:
        rows = await self._tables.rows("SELECT digest FROM verification WHERE size = ? LIMIT ?", size, SAME_SIZE)
        return [Digest(row[0]) for row in rows]

    # -- writes

    async def record_good(self, found: Sequence[tuple[Blob, Signature | None]]) -> None:
        """Records blobs that are good: the store has hashed them, or the source of the same bytes beside each."""
        rows = self._noted([blob for blob, _ in found])
        sources = [(source, blob.digest) for blob, source in found if source is not None and _is_settled(source)]

        def write(db: sqlite3.Connection) -> None:
            db.executemany(_USED, rows)
            for source, digest in sources:
                _remember_source(db, source, digest)

        await self._tables.write(write)

    async def record_verified(self, blobs: Sequence[Blob]) -> None:
        """Records that all bytes of these blobs have just been hashed and are good."""
        rows = self._noted(blobs)
        await self._tables.write(lambda db: db.executemany(_HASHED, rows))

    async def record_source(self, source: Signature, digest: Digest) -> None:
        """Records the digest of a source that was not the expected one: the next add refuses it without reading it."""
        if _is_settled(source):
            await self._tables.write(lambda db: _remember_source(db, source, digest))

    async def record_relinked(self, changes: Sequence[Relinked]) -> None:
        """Records new signatures of blobs whose links the store itself made or removed: their verification stays valid.

        A blob counts only if its record has the signature `before`, and only its links have changed.
        """
        same = [change for change in changes if change.before.only_links_changed(change.after)]
        if not same:
            return
        rows = [(change.after.text, change.before.text) for change in same]
        async with self._relinking:
            moved = await anyio.to_thread.run_sync(partial(self._move, same))

            def write(db: sqlite3.Connection) -> None:
                db.executemany("UPDATE verification SET signature = ? WHERE signature = ?", rows)
                db.executemany("UPDATE verification SET signature = ? WHERE digest = ?", moved)

            await self._tables.write(write)

    def _move(self, same: Sequence[Relinked]) -> list[tuple[str, str]]:
        """Returns the rows of verified blobs with these inodes, which may have another number of the device. With
        100,000 blobs known it takes some ten milliseconds."""
        inodes, moved = {change.before.inode for change in same}, list[tuple[str, str]]()
        for noted in (self._verified, self._unproven):
            # A copy: threads that look at blobs add to it.
            by_signature = {known: text for text, known in noted.copy().items() if known.inode in inodes}
            for change in same:
                if (text := by_signature.pop(change.before, None)) is not None:
                    noted[text] = change.after
                    by_signature[change.after] = text
            if noted is self._verified:
                moved = [(known.text, text) for known, text in by_signature.items()]
        return moved

    def relinked(self, digest: Digest, known: Signature, now: Signature) -> None:
        """As `record_relinked` for a blob that was known by a signature, in this run alone. For any thread."""
        for noted in (self._verified, self._unproven):
            if noted.get(digest.hex) == known:
                noted[digest.hex] = now

    def expect(self, copies: Mapping[Digest, Signature]) -> None:
        """Copies of all blobs, which were hashed as they were made, may take their places. For a thread: they may be
        many."""
        self._copies = {digest.hex: signature for digest, signature in copies.items()}

    def forget_copies(self) -> None:
        """They have not taken any places."""
        self._copies = {}

    def become(self) -> None:
        """The copies have taken the places of all blobs, also in the catalogue. Blocks."""
        with self._first_look:
            self._verified, self._copies = self._copies, {}
            self._unproven, self._loaded = {}, {}

    async def forget(self, *digests: Digest) -> None:
        """Forgets blobs that were removed or found bad."""
        for digest in digests:
            for noted in (self._verified, self._unproven, self._loaded):
                noted.pop(digest.hex, None)
        rows = [(digest.hex,) for digest in digests]
        await self._tables.write(lambda db: db.executemany("DELETE FROM verification WHERE digest = ?", rows))

    def _noted(self, blobs: Sequence[Blob]) -> list[tuple[str, str, int, float, float]]:
        now = time.time()
        self._verified.update((blob.digest.hex, blob.signature) for blob in blobs)
        return [(blob.digest.hex, blob.signature.text, blob.size, now, now) for blob in blobs]


def _is_settled(source: Signature) -> bool:
    return max(source.mtime_ns, source.ctime_ns) < time.time_ns() - _SETTLED_NS


def _remember_source(db: sqlite3.Connection, source: Signature, digest: Digest) -> None:
    added = db.execute(
        "INSERT OR REPLACE INTO source (signature, digest) VALUES (?, ?)", (source.text, digest.hex)
    ).lastrowid
    db.execute("DELETE FROM source WHERE id <= ?", ((added or 0) - KEPT_SOURCES,))


def replace_all(db: sqlite3.Connection, copies: Mapping[Digest, Signature]) -> None:
    """In a catalogue that is not in use yet: the blobs that it knows are these."""
    now = time.time()
    rows = [(digest.hex, signature.text, signature.size, now, now) for digest, signature in copies.items()]
    db.execute("CREATE TEMP TABLE copied (digest TEXT PRIMARY KEY) WITHOUT ROWID")
    db.executemany("INSERT INTO copied VALUES (?)", [row[:1] for row in rows])
    db.execute("DELETE FROM verification WHERE digest NOT IN (SELECT digest FROM copied)")
    db.executemany(_HASHED, rows)
    db.execute("DROP TABLE copied")
