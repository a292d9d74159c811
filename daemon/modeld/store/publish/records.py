"""What was verified when: the store's own tables in the catalogue.

A blob whose stat signature is still the one under which its bytes were last hashed need not be hashed again before it
is given out as the answer to an add; nor need a source file that has not changed. Everything here only saves work:
without the catalogue each question is answered by hashing.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from modeld.store.blobs.blobs import Blob
from modeld.store.digest import Digest, Signature
from modeld.store.manifests.trees import Relinked, only_links_changed
from modelwire.errors import WireError

if TYPE_CHECKING:
    from modeld.store.catalog.catalog import Catalog

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
)

KEPT_SOURCES: Final = 10_000
"""A signature takes about 200 bytes; nobody adds more files than this again and again."""

SAME_SIZE: Final = 8
"""Blobs of one size that are worth a look: fine-tunes of one model often have the same size to the byte."""

_AT_ONCE: Final = 500
"""SQLite takes at least 999 values in one statement."""

_GOOD: Final = (
    "INSERT INTO verification VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET used_at = excluded.used_at,"
    " verified_at = CASE signature WHEN excluded.signature THEN verified_at ELSE excluded.verified_at END,"
    " signature = excluded.signature, size = excluded.size"
)

_SETTLED_NS: Final = 2_000_000_000
"""A file written this shortly ago may be written again without its times telling (FAT counts in 2 s)."""


class Records:
    """Verifications and known sources. Without a catalogue they last as long as the process."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._catalog = catalog
        self._verified: dict[str, Signature] = {}
        """Of this run: also what a full disk kept from being written down."""
        if catalog is not None:
            catalog.migrate(ROOM, STEPS)

    async def verified_as(self, digest: Digest) -> Signature | None:
        """The signature of the blob when its bytes were last found good."""
        known = self._verified.get(digest.hex)
        if known is not None:
            return known
        rows = await self._rows("SELECT signature FROM verification WHERE digest = ?", digest.hex)
        return _signature(rows[0][0]) if rows else None

    async def digest_of_source(self, source: Signature) -> Digest | None:
        """What a file of exactly this signature was hashed to."""
        rows = await self._rows("SELECT digest FROM source WHERE signature = ?", _text(source))
        return Digest(rows[0][0]) if rows else None

    async def digests_of_size(self, size: int) -> list[Digest]:
        rows = await self._rows("SELECT digest FROM verification WHERE size = ? LIMIT ?", size, SAME_SIZE)
        return [Digest(row[0]) for row in rows]

    async def good(self, blob: Blob, source: Signature | None) -> None:
        """The store has hashed this blob, or the source that it now equals, and found it good."""
        self._verified[blob.digest.hex] = blob.signature
        now = time.time()

        def write(db: sqlite3.Connection) -> None:
            db.execute(_GOOD, (blob.digest.hex, _text(blob.signature), blob.size, now, now))
            if source is not None and _is_settled(source):
                _remember_source(db, source, blob.digest)

        await self._write(write)

    async def verified(self, blobs: Sequence[Blob]) -> None:
        """All bytes of these have been hashed just now, and they are good."""
        now = time.time()
        self._verified.update((blob.digest.hex, blob.signature) for blob in blobs)
        rows = [(blob.digest.hex, _text(blob.signature), blob.size, now, now) for blob in blobs]
        await self._write(
            lambda db: db.executemany(
                "INSERT INTO verification VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET"
                " verified_at = excluded.verified_at, signature = excluded.signature, size = excluded.size",
                rows,
            )
        )

    async def verified_at(self, blobs: Sequence[Blob]) -> float | None:
        """Since when all of these are known to be as they are now; None unless all of them were."""
        rows = await self._look_up(
            "SELECT digest, signature, verified_at FROM verification WHERE digest", [blob.digest.hex for blob in blobs]
        )
        known = {digest: (_signature(signature), moment) for digest, signature, moment in rows}
        if any(known.get(blob.digest.hex, (None, 0.0))[0] != blob.signature for blob in blobs):
            return None
        return min((known[blob.digest.hex][1] for blob in blobs), default=None)

    async def digests_of_sources(self, sources: Sequence[Signature]) -> dict[Signature, Digest]:
        """As `digest_of_source`, for many at once."""
        texts = {_text(source): source for source in sources}
        rows = await self._look_up("SELECT signature, digest FROM source WHERE signature", list(texts))
        return {texts[signature]: Digest(digest) for signature, digest in rows}

    async def verified_all(self, digests: Iterable[Digest]) -> dict[Digest, Signature]:
        """As `verified_as`, for many at once; those that never were are left out."""
        hexes = {digest.hex for digest in digests}
        known = {text: self._verified[text] for text in hexes if text in self._verified}
        rows = await self._look_up(
            "SELECT digest, signature FROM verification WHERE digest", sorted(hexes - set(known))
        )
        known.update((text, _signature(signature)) for text, signature in rows)
        return {Digest(text): signature for text, signature in known.items()}

    async def all_good(self, found: Sequence[tuple[Blob, Signature]]) -> None:
        """As `good`, for many at once: each with the source that it equals."""
        self._verified.update((blob.digest.hex, blob.signature) for blob, _ in found)
        now = time.time()
        rows = [(blob.digest.hex, _text(blob.signature), blob.size, now, now) for blob, _ in found]
        sources = [(source, blob.digest) for blob, source in found if _is_settled(source)]

        def write(db: sqlite3.Connection) -> None:
            db.executemany(_GOOD, rows)
            for source, digest in sources:
                _remember_source(db, source, digest)

        await self._write(write)

    async def relinked(self, changes: Sequence[Relinked]) -> None:
        """Links to these blobs were made or removed by the store itself: what was verified is still so.

        Each only if it was verified exactly as it was before, and only if nothing but the links has changed.
        """
        told = [(_text(change.after), _text(change.before)) for change in changes if only_links_changed(change)]
        if not told:
            return
        by_signature = {_text(signature): text for text, signature in self._verified.items()}
        for after, before in told:
            if (known := by_signature.pop(before, None)) is not None:
                self._verified[known] = _signature(after)
                by_signature[after] = known
        await self._write(lambda db: db.executemany("UPDATE verification SET signature = ? WHERE signature = ?", told))

    async def _look_up(self, query: str, values: Sequence[str]) -> list[Any]:
        found: list[Any] = []
        for first in range(0, len(values), _AT_ONCE):
            some = values[first : first + _AT_ONCE]
            found += await self._rows(f"{query} IN ({', '.join('?' * len(some))})", *some)
        return found

    async def read_as(self, source: Signature, digest: Digest) -> None:
        """A source turned out to be something else than was expected: next time that is known without reading it."""
        if _is_settled(source):
            await self._write(lambda db: _remember_source(db, source, digest))

    async def gone(self, *digests: Digest) -> None:
        """These blobs were removed or found bad."""
        for digest in digests:
            self._verified.pop(digest.hex, None)
        rows = [(digest.hex,) for digest in digests]
        await self._write(lambda db: db.executemany("DELETE FROM verification WHERE digest = ?", rows))

    async def _rows(self, query: str, *values: str | int) -> list[Any]:
        """Nothing is known when the catalogue cannot be read: then the bytes are."""
        if self._catalog is None:
            return []
        with contextlib.suppress(WireError):
            return await self._catalog.read(lambda db: db.execute(query, values).fetchall())
        return []

    async def _write(self, change: Callable[[sqlite3.Connection], object]) -> None:
        """A full disk must not make an add fail that has succeeded."""

        def write(db: sqlite3.Connection) -> None:
            change(db)  # not what it gives back: a cursor that outlives the connection keeps the file locked

        if self._catalog is not None:
            with contextlib.suppress(WireError):
                await self._catalog.write(write)


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
