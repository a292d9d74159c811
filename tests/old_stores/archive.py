"""An archived store in a room of its own, as after a restore from a backup on another machine."""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

VERSIONS = sorted(path.name for path in Path(__file__).parent.iterdir() if path.name[0] == "v")


def unpack(version: str, name: str, room: Path) -> dict[str, Any]:
    """What the daemon of that version said of it right before its end.

    Inodes and times of change are others than the catalogue knows, and the daemon has to cope with that by itself.
    Only what lies outside of the store is brought up to date in it: where the sources of open jobs are, and the user
    who asked for them.
    """
    archive = Path(__file__).parent / version / name
    with tarfile.open(archive.with_suffix(".tar.xz")) as tar:
        # The first releases of Python 3.11 know no filters, and the later ones want one named.
        known: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
        tar.extractall(room, map(_of_today, tar), **known)
    facts: dict[str, Any] = json.loads(archive.with_suffix(".json").read_bytes())
    with closing(sqlite3.connect(room / "models" / ".modeld" / "catalog.sqlite")) as catalog, catalog:
        catalog.execute(
            "UPDATE jobs SET request = CAST(replace(CAST(request AS TEXT), ?1, ?2) AS BLOB),"
            ' "key" = replace("key", ?1, ?2) WHERE ended_at IS NULL',
            (f"{facts['room']}/", f"{room}/"),
        )
        for table in ("jobs", "joined_tokens"):
            catalog.execute(f"UPDATE {table} SET peer_uid = ?", (os.getuid(),))
    return facts


def _of_today(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """No file of the future where the clock is behind, no download so old that a sweep would take it, and no file that
    others may write to."""
    now = time.time()
    downloading = ".partial-" in member.name or "/.modeld/partials/" in member.name
    member.mtime, member.mode = now if downloading else min(member.mtime, now), member.mode & 0o755
    return member


def partials(room: Path) -> list[Path]:
    found = (*room.glob("models/blobs/sha256/*/.partial-*"), *room.glob("models/.modeld/partials/*"))
    return sorted(path for path in found if (path / "journal").exists())


def proven(partial: Path) -> int:
    """Bytes that the journal vouches for."""
    pieces = [json.loads(line.partition(" ")[2]) for line in (partial / "journal").read_text().splitlines()]
    return sum(piece["end"] - piece["start"] for piece in pieces if piece["type"] == "piece")
