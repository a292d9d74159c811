"""What the headers of blobs say, so that a model is shown without opening its files.

Facts that are lost with the catalogue, or that an older reader found, are read again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from modeld.inspect.inspection import READER
from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.tables import Tables
from modeld.store.digest import Digest
from modelwire.values import ModelFacts

ROOM: Final = "facts"

STEPS: Final = (
    "CREATE TABLE facts (digest TEXT PRIMARY KEY, reader INTEGER NOT NULL, facts BLOB NOT NULL) WITHOUT ROWID",
)


class Facts:
    """Thread-safe. Without a catalogue nothing is remembered."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._tables = Tables(catalog, ROOM, STEPS)

    def known(self, digests: Collection[Digest]) -> dict[Digest, ModelFacts]:
        """For threads: blocks."""
        query = "SELECT digest, reader, facts FROM facts WHERE digest IN ({})"
        found: dict[Digest, ModelFacts] = {}
        for digest, reader, facts in self._tables.look_among(query, [digest.hex for digest in digests]):
            with contextlib.suppress(msgspec.MsgspecError):
                if reader == READER:
                    found[Digest(digest)] = msgspec.json.decode(facts, type=ModelFacts)
        return found

    def remember(self, facts: Mapping[Digest, ModelFacts]) -> None:
        """Returns at once: the facts are written with the next commit."""
        rows = [(digest.hex, READER, msgspec.json.encode(each)) for digest, each in facts.items()]
        if rows:
            self._tables.post(lambda db: db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows))

    async def prune(self, digests: Collection[str]) -> None:
        """Forgets the facts of all other blobs."""

        def forget(db: sqlite3.Connection) -> None:
            known = [hex_ for (hex_,) in db.execute("SELECT digest FROM facts")]
            db.executemany("DELETE FROM facts WHERE digest = ?", [(hex_,) for hex_ in known if hex_ not in digests])

        await self._tables.write(forget)
