"""The write-ahead log of the open catalogue, `catalog.sqlite-wal`: whether it is still what SQLite wrote.

SQLite does not notice that another program removes or cuts the file that it has open. After a kill nothing is left of
what was committed since the last checkpoint; and a checkpoint copies the hole in a cut log into the database, which is
no database then.
"""

from __future__ import annotations

import os

from modeld.store.catalog.catalog_file import WAL_LIMIT_BYTES, file_at
from modeld.store.disk import durable

_SUFFIX = "-wal"

PARTED = ".parted"
"""Suffix of a copy that is being made; a crash may leave it."""

_PIECE = 1024 * 1024


class WriteAheadLog:
    """Holds a descriptor of its own: the file can still be looked at when it has no name any more."""

    def __init__(self, database: str) -> None:
        self._path = database + _SUFFIX
        try:
            self._descriptor: int | None = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            self._descriptor = None
        self._size = 0
        self.note()

    def note(self) -> None:
        """Call it after each use of the connection. SQLite cuts a log only when it is longer than its limit; one that
        became shorter before its size could be noted stays cut."""
        size = self._now()
        if size >= self._size or self._size > WAL_LIMIT_BYTES:
            self._size = size

    def is_cut(self) -> bool:
        return self._now() < self._size

    def is_unnamed(self) -> bool:
        """Whether the name is gone, or stands for another file."""
        if self._descriptor is None:
            return False
        info = os.fstat(self._descriptor)
        return file_at(self._path) != (info.st_dev, info.st_ino)

    def close(self) -> None:
        """From here on it is neither cut nor unnamed."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._size = 0

    def _now(self) -> int:
        return 0 if self._descriptor is None else os.fstat(self._descriptor).st_size


def part_from_log(database: str) -> None:
    """Puts a copy of the database, as of its last checkpoint, in its place and removes the log. SQLite, which sees that
    its file has no name any more, then closes it without a checkpoint. A crash in between leaves the same content.

    The caller syncs the directory.
    """
    temporary = database + PARTED
    with durable.store_faults("copy", database):
        durable.remove(temporary)
        target = durable.create_file(temporary)
        try:
            with open(database, "rb") as source:
                at = 0
                while piece := source.read(_PIECE):
                    durable.write_at(target, memoryview(piece), at)
                    at += len(piece)
            durable.sync_file(target)
        finally:
            os.close(target)
        durable.remove(database + _SUFFIX)
        durable.name_replacing(temporary, database)
