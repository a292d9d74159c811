"""Records of verifications: the stat signature under which a blob was last good, and the digest of a source file.

A blob with an unchanged signature is not hashed again before an add uses it; an unchanged source file is not read
again. The records only save work: without them the store hashes.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Final

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

    # -- reads

    async def verified_signatures(self, digests: Iterable[Digest]) -> dict[Digest, Signature]:
        """The signatures of the blobs when their bytes were last found good; blobs without a record are left out."""
        hexes = {digest.hex for digest in digests}
        known = {text: self._verified[text] for text in hexes if text in self._verified}
        rows = await self._tables.rows_among(
            "SELECT digest, signature FROM verification WHERE digest IN ({})", sorted(hexes - set(known))
        )
        known.update((text, _signature(signature)) for text, signature in rows)
        return {Digest(text): signature for text, signature in known.items()}

    def proof(self, digest: Digest) -> Signature | None:
        """The blob's signature when this run found it good. Never waits; for any thread."""
        return self._verified.get(digest.hex)

    def remember(self, digest: Digest, signature: Signature) -> None:
        """Makes a recorded verification, whose signature the blob still has, a proof of this run."""
        self._verified[digest.hex] = signature

    async def verified_at(self, blobs: Sequence[Blob]) -> float | None:
        """The earliest of their last verifications; None unless all of them are unchanged since."""
        rows = await self._tables.rows_among(
            "SELECT digest, signature, verified_at FROM verification WHERE digest IN ({})",
            [blob.digest.hex for blob in blobs],
        )
        known = {digest: (_signature(signature), moment) for digest, signature, moment in rows}
        if any(known.get(blob.digest.hex, (None, 0.0))[0] != blob.signature for blob in blobs):
            return None
        return min((known[blob.digest.hex][1] for blob in blobs), default=None)

    async def digests_of_sources(self, sources: Sequence[Signature]) -> dict[Signature, Digest]:
        """The digests of files with exactly these signatures; unknown files are left out."""
        texts = {_text(source): source for source in sources}
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
        same = [
            (_text(change.after), _text(change.before))
            for change in changes
            if change.before.only_links_changed(change.after)
        ]
        if not same:
            return
        inodes = {change.before.inode for change in changes}
        by_signature = {_text(known): text for text, known in self._verified.items() if known.inode in inodes}
        for after, before in same:
            if (known := by_signature.pop(before, None)) is not None:
                self._verified[known] = _signature(after)
                by_signature[after] = known
        await self._tables.write(
            lambda db: db.executemany("UPDATE verification SET signature = ? WHERE signature = ?", same)
        )

    async def forget(self, *digests: Digest) -> None:
        """Forgets blobs that were removed or found bad."""
        for digest in digests:
            self._verified.pop(digest.hex, None)
        rows = [(digest.hex,) for digest in digests]
        await self._tables.write(lambda db: db.executemany("DELETE FROM verification WHERE digest = ?", rows))

    def _noted(self, blobs: Sequence[Blob]) -> list[tuple[str, str, int, float, float]]:
        now = time.time()
        self._verified.update((blob.digest.hex, blob.signature) for blob in blobs)
        return [(blob.digest.hex, _text(blob.signature), blob.size, now, now) for blob in blobs]


def _is_settled(source: Signature) -> bool:
    return max(source.mtime_ns, source.ctime_ns) < time.time_ns() - _SETTLED_NS


def _remember_source(db: sqlite3.Connection, source: Signature, digest: Digest) -> None:
    added = db.execute(
        "INSERT OR REPLACE INTO source (signature, digest) VALUES (?, ?)", (_text(source), digest.hex)
    ).lastrowid
    db.execute("DELETE FROM source WHERE id <= ?", ((added or 0) - KEPT_SOURCES,))


def _text(signature: Signature) -> str:
    """As text: inode and device numbers use all 64 bits on some filesystems, SQLite's integers 63."""
    parts = (signature.device, signature.inode, signature.size, signature.mtime_ns, signature.ctime_ns)
    return ":".join(map(str, parts))


def _signature(text: str) -> Signature:
    device, inode, size, mtime_ns, ctime_ns = map(int, text.split(":"))
    return Signature(device, inode, size, mtime_ns, ctime_ns)
