"""An archived store in a room of its own, as after a restore from a backup on another machine."""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

VERSIONS = sorted(path.name for path in Path(__file__).parent.iterdir() if path.name[0] == "v")


def unpack(version: str, name: str, room: Path) -> dict[str, Any]:
    """What the daemon of that version said of it right before its end.

    Inodes and times of change are others than the catalogue knows, and the daemon has to cope with that by itself.
    Only what the world outside of the store is now is written into it: where the sources of open jobs lie, and the
    user who asked for them.
    """
    archive = Path(__file__).parent / version / name
    with tarfile.open(archive.with_suffix(".tar.xz")) as tar:
        tar.extractall(room, filter="tar")
    facts: dict[str, Any] = json.loads(archive.with_suffix(".json").read_bytes())
    with closing(sqlite3.connect(room / "models" / ".modeld" / "catalog.sqlite")) as catalog, catalog:
        catalog.execute(
            "UPDATE jobs SET request = CAST(replace(CAST(request AS TEXT), ?1, ?2) AS BLOB),"
            ' "key" = replace("key", ?1, ?2) WHERE ended_at IS NULL',
            (f"{facts['room']}/", f"{room}/"),
        )
        for table in ("jobs", "joined_tokens"):
            catalog.execute(f"UPDATE {table} SET peer_uid = ?", (os.getuid(),))
    for partial in partials(room):
        for path in (*partial.iterdir(), partial):
            os.utime(path)  # the archive grows old, and a sweep takes downloads of last week
    return facts


def partials(room: Path) -> list[Path]:
    found = (*room.glob("models/blobs/sha256/*/.partial-*"), *room.glob("models/.modeld/partials/*"))
    return sorted(path for path in found if (path / "journal").exists())


def proven(partial: Path) -> int:
    """Bytes that the journal vouches for."""
    pieces = [json.loads(line.partition(" ")[2]) for line in (partial / "journal").read_text().splitlines()]
    return sum(piece["end"] - piece["start"] for piece in pieces if piece["type"] == "piece")
