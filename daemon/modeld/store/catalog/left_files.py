"""The unfinished files that jobs of limited users have left: what each of them still takes of the disk.

When the catalogue is lost, the files of earlier jobs count for no user. A sweep removes them by their age.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import defaultdict
from typing import Final

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.tables import Tables

ROOM: Final = "left_files"

STEPS: Final = (
    """
    CREATE TABLE left_files (
        path TEXT PRIMARY KEY, uid INTEGER NOT NULL, size INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
)


class LeftFiles:
    """Call it from any thread, but `write` from the event loop alone."""

    def __init__(self, catalog: Catalog | None, root: str) -> None:
        self._tables = Tables(catalog, ROOM, STEPS)
        self._root = root
        self._lock = threading.Lock()
        self._files: dict[str, tuple[int, int]] = {}
        """By the path below the root: the user and the bytes."""

        self._bytes: defaultdict[int, int] = defaultdict(int)
        self._unwritten = set[str]()
        for path, uid, size in self._tables.load("SELECT path, uid, size FROM left_files"):
            self._set(path, (uid, size))

    def bytes_of(self, uid: int) -> int:
        """As the files were when their jobs left them."""
        return self._bytes.get(uid, 0)

    def note(self, path: str, uid: int, size: int) -> None:
        """Counts the file for this user instead of any other; a file of 0 bytes counts for no user."""
        self._change(path[len(self._root) + 1 :], (uid, size) if size else None)

    def look_again(self, uid: int) -> int:
        """Blocking: `bytes_of` without what has been removed or named since."""
        with self._lock:
            mine = [(path, size) for path, (owner, size) in self._files.items() if owner == uid]
        for path, size in mine:
            try:
                left = min(size, os.lstat(f"{self._root}/{path}").st_blocks * 512)
            except FileNotFoundError:
                left = 0
            if left < size:
                self._change(path, (uid, left) if left else None, only=(uid, size))
        return self.bytes_of(uid)

    async def write(self) -> None:
        with self._lock:
            paths, self._unwritten = self._unwritten, set()
            rows = [(path, *self._files[path]) for path in paths if path in self._files]
            gone = [(path,) for path in paths if path not in self._files]

        def write(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO left_files VALUES (?, ?, ?)", rows)
            db.executemany("DELETE FROM left_files WHERE path = ?", gone)

        if paths:
            await self._tables.write(write)

    def _change(self, path: str, file: tuple[int, int] | None, only: tuple[int, int] | None = None) -> None:
        with self._lock:
            known = self._files.get(path)
            if known != file and only in (None, known):
                self._set(path, file)
                self._unwritten.add(path)

    def _set(self, path: str, file: tuple[int, int] | None) -> None:
        known = self._files.pop(path, None)
        if known is not None:
            self._bytes[known[0]] -= known[1]
        if file is not None:
            self._files[path] = file
            self._bytes[file[0]] += file[1]
