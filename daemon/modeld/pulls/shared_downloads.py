"""Jobs that want the same bytes share one download, which ends when the last of them has left.

A download is a task of its own and belongs to no job: the job that started it may be cancelled while others wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from operator import sub
from typing import Protocol

import anyio

from modeld.download.cancel_scope import CancelScope
from modeld.download.engine.assembly import Fetched
from modeld.download.engine.budget import CommonPace, Pace, Share
from modeld.download.routes.events import OnEvent, TransferEvent
from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.pulls.own_thread import LEAVE_SECONDS, in_own_thread, until_done
from modeld.store.blobs.blobs import Blob
from modeld.store.disk.user_space import ShareExceeded
from modeld.store.ingest.ingest import Ingest


class Work(Protocol):
    """Blocks until the file is whole, verified and durable."""

    def __call__(self, *, progress: FileProgress, on_event: OnEvent, pace: Pace) -> Fetched: ...


@dataclass(frozen=True, slots=True)
class Downloaded:
    blob: Blob
    fetched: Fetched
    route: str
    """Of the job that started the download: the sources that gave the bytes are those of this route."""


class SharedDownloads:
    """The running downloads of the daemon, each by the key of its bytes. For the event loop."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._by_key: dict[str, _Download] = {}

    async def fetch(
        self,
        key: str,
        route: str,
        work: Work,
        progress: FileProgress,
        on_event: OnEvent,
        share: Share,
        held: ExitStack,
    ) -> Downloaded:
        """Joins the download of `key`, or starts it. Raises Stopped when `progress` is stopped. `route` is equal for
        jobs that ask the same sources: the failure of a download fails only those. No sweep takes the blob before
        `held` is closed."""
        while True:
            download = self._by_key.get(key)
            first = download is None
            if download is None:
                download = self._by_key[key] = _Download(route)
                download.task = asyncio.create_task(self._run(key, download, work))
                # Its outcome is not an error when all jobs have left, and asyncio would report it as one.
                download.task.add_done_callback(lambda task: task.cancelled() or task.exception())
            reported = _Forwarder(download.progress, progress)
            try:
                with download.joined(reported, on_event, share):
                    await until_done(download.task, progress.stopped)
                    blob, fetched = download.task.result()
                    held.enter_context(self._ingest.holds.relying_on(fetched.digest))
                    return Downloaded(blob, fetched, download.route)
            except Stopped:
                if progress.stopped():
                    if not download.jobs:
                        with anyio.move_on_after(LEAVE_SECONDS, shield=True):
                            await asyncio.wait([download.task])
                    raise
                # All of its jobs had left before this one joined.
            except Exception as fault:
                # A download of another route asked other sources than this job would, and that of another user has
                # another share of the space.
                if first or (download.route == route and not isinstance(fault, ShareExceeded)):
                    raise
            reported.take_back()

    async def _run(self, key: str, download: _Download, work: Work) -> tuple[Blob, Fetched]:
        """A file that is whole is committed, also when all jobs have left: the next pull finds it."""
        (file,) = download.progress.files([None])
        fetch = partial(work, progress=file, on_event=download.tell, pace=download.pace)
        try:
            fetched = await in_own_thread(fetch, name=f"fetch {key[:24]}", scope=download.scope)
            download.held.enter_context(self._ingest.holds.relying_on(fetched.digest))
            return await self._ingest.commit(fetched), fetched
        finally:
            del self._by_key[key]
            if not download.jobs:
                download.held.close()


class _Download:
    task: asyncio.Task[tuple[Blob, Fetched]]

    def __init__(self, route: str) -> None:
        self.route = route
        self.progress = JobProgress()
        self.pace = CommonPace()
        self.jobs: dict[_Forwarder, OnEvent] = {}
        self.scope = CancelScope()
        """Of the thread that fetches, which waits for the network while it asks for another source."""

        self.held = ExitStack()
        """Keeps the blob from before it has its name until each job holds it."""

    def tell(self, event: TransferEvent) -> None:
        """Tells one job, from any thread: all jobs write to the same log."""
        for on_event in tuple(self.jobs.values())[:1]:  # a copy: jobs join and leave meanwhile
            on_event(event)

    @contextmanager
    def joined(self, forwarder: _Forwarder, on_event: OnEvent, share: Share) -> Iterator[None]:
        """When the last job leaves, the download ends and keeps its bytes."""
        self.pace.join(share)
        self.jobs[forwarder] = on_event
        try:
            with self.progress.heard_by(forwarder):
                yield
        finally:
            del self.jobs[forwarder]
            self.pace.leave(share)
            if not self.jobs:
                self.progress.stop_reason = "cancel"
                self.scope.cancel()
                if self.task.done():
                    self.held.close()


class _Forwarder:
    """Reports the progress of a shared download to one job. The first report includes what the job has missed, as bytes
    that were here before, but neither bytes from the network nor attempts, which other jobs count."""

    def __init__(self, shared: JobProgress, progress: FileProgress) -> None:
        self._progress = progress
        self._source: str | None = None
        self._counts = (0, 0, 0, shared.kept - shared.done, shared.network, shared.attempt)
        self._kept_at_first = self._counts[3]

    def __call__(self, shared: JobProgress) -> None:
        progress, before = self._progress, self._counts
        if shared.source is not None and shared.source != self._source:
            self._source = shared.source
            progress.source(shared.source, shared.address)
        progress.total(shared.total_bytes)
        self._counts = (
            *(shared.done, shared.verified, shared.reused),
            *(shared.kept, shared.network, shared.attempt),
        )
        done, verified, reused, kept, network, attempts = map(sub, self._counts, before)
        for _attempt in range(attempts):
            progress.attempted()
        if done or verified or reused or network:
            progress.advance(done=done, verified=verified, reused=reused, kept=kept, network=network)
        progress.partial(*shared.partials)
        if shared.current_phase != "queued":
            progress.phase(shared.current_phase)

    def take_back(self) -> None:
        """Another download counts the bytes of the file anew."""
        done, verified, reused, kept, *_others = self._counts
        self._progress.advance(done=-done, verified=-verified, reused=-reused, kept=self._kept_at_first - kept)
