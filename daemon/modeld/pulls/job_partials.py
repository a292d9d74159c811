"""The partial downloads of jobs: what an open job goes on with, and what a cancel that discards removes.

Kept in the catalogue, because a paused job outlives the daemon. Without the catalogue an old partial goes by its age.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import anyio

from modeld.progress import JobProgress, Listener
from modeld.store import Digest
from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.tables import Tables
from modeld.store.disk.layout import Layout
from modeld.store.publish.holds import Held
from modelwire.errors import InvalidDigest

ROOM: Final = "job_partials"

STEPS: Final = (
    """
    CREATE TABLE job_partials (
        job TEXT NOT NULL, place TEXT NOT NULL, time REAL NOT NULL, PRIMARY KEY (job, place)
    ) WITHOUT ROWID;
    """,
)


COALESCE_SECONDS: Final = 1.0
"""A pull of many small files opens hundreds of partials in a second."""


class JobPartials:
    """For the event loop. A place is a directory below the root."""

    def __init__(self, catalog: Catalog | None, layout: Layout) -> None:
        self._tables = Tables(catalog, ROOM, STEPS)
        self._layout = layout
        self._places: dict[str, set[str]] = {}
        self._unwritten: set[tuple[str, str]] = set()
        self._writing: asyncio.Task[None] | None = None
        for job, place in self._tables.load("SELECT job, place FROM job_partials"):
            self._places.setdefault(job, set()).add(place)

    def of(self, jobs: Iterable[str]) -> set[Held]:
        """What the store's holds call the partials of these jobs. From any thread."""
        return {self._held(place) for job in jobs for place in list(self._places.get(job, ()))}

    @asynccontextmanager
    async def followed(self, job: str, progress: JobProgress) -> AsyncIterator[None]:
        """Around a pull: notes each partial that it opens, and forgets them all when it succeeds."""
        try:
            with progress.heard_by(self._listener(job)):
                yield
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._write()
            raise
        if places := self._places.pop(job, None):
            self._unwritten -= {(job, place) for place in places}
            await self._tables.write(lambda db: db.execute("DELETE FROM job_partials WHERE job = ?", (job,)))

    async def prune(self, now: float, keep: float) -> None:
        """Forgets what no pull has opened for `keep` seconds."""
        before = now - keep
        await self._tables.write(lambda db: db.execute("DELETE FROM job_partials WHERE time < ?", (before,)))

    def _listener(self, job: str) -> Listener:
        loop, length = asyncio.get_running_loop(), len(self._layout.root) + 1
        seen: frozenset[str] = frozenset()

        def listen(progress: JobProgress) -> None:
            nonlocal seen
            if progress.partials is not seen:
                new, seen = progress.partials - seen, progress.partials
                with contextlib.suppress(RuntimeError):  # the loop is gone
                    loop.call_soon_threadsafe(self._note, job, [path[length:] for path in new])

        return listen

    def _note(self, job: str, places: list[str]) -> None:
        self._places.setdefault(job, set()).update(places)
        self._unwritten.update((job, place) for place in places)
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write_soon())

    async def _write_soon(self) -> None:
        await anyio.sleep(COALESCE_SECONDS)
        self._writing = None
        await self._write()

    async def _write(self) -> None:
        noted, self._unwritten = self._unwritten, set()
        rows = [(job, place, time.time()) for job, place in noted]
        if rows:
            insert = "INSERT OR REPLACE INTO job_partials VALUES (?, ?, ?)"
            await self._tables.write(lambda db: db.executemany(insert, rows))

    def _held(self, place: str) -> Held:
        with contextlib.suppress(InvalidDigest):
            digest = Digest(place[-64:])
            if self._layout.partial_dir(digest) == f"{self._layout.root}/{place}":
                return digest
        return f"{self._layout.root}/{place}"
