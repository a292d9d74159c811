"""Jobs that want the same bytes share one download, which ends when the last of them has left.

A download has a thread of its own and belongs to no job: the job that started it may be cancelled while others wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import sub
from typing import Final, Protocol

import anyio

from modeld.download.engine.assembly import Fetched
from modeld.download.engine.budget import CommonPace, Pace, Share
from modeld.download.routes.events import OnEvent, unheard
from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.pulls.own_thread import OwnThread
from modeld.store.blobs.blobs import Blob
from modeld.store.ingest.ingest import Ingest


class Work(Protocol):
    """Blocks until the file is whole, verified and durable."""

    def __call__(self, *, progress: FileProgress, on_event: OnEvent, pace: Pace) -> Fetched: ...


LEAVE_SECONDS: Final = 3.0
"""How long the last job waits for the connections to end and the journal to be written. That takes milliseconds; a
disk that hangs must not keep a cancelled job from ending."""


class SharedDownloads:
    """The running downloads of the daemon, each by the key of its bytes."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._by_key: dict[str, SharedDownload] = {}

    async def fetch(
        self, key: str, route: str, work: Work, progress: FileProgress, on_event: OnEvent, share: Share
    ) -> tuple[Blob, Fetched]:
        """Joins the download of `key`, or starts it. Raises Stopped when `progress` is stopped. `route` is equal for
        jobs that ask the same sources: the failure of a download fails only those."""
        while True:
            download = self._by_key.get(key)
            if download is not None and download.abandoned:
                await download.thread.wait(progress.stopped)
                continue
            first = download is None
            if download is None:
                download = self._by_key[key] = SharedDownload(key, route, work, partial(self._forget, key))
            try:
                with download.joined(progress, on_event, share):
                    if first:
                        download.thread.start()
                    return await self._follow(download, progress)
            except Exception as fault:
                # A download of another route asked other sources than this job would.
                if isinstance(fault, Stopped) or first or download.route == route:
                    raise

    def _forget(self, key: str, download: SharedDownload) -> None:
        if self._by_key.get(key) is download:
            del self._by_key[key]

    async def _follow(self, download: SharedDownload, progress: FileProgress) -> tuple[Blob, Fetched]:
        try:
            await download.thread.wait(progress.stopped)
            return await download.commit(self._ingest)
        except Stopped:
            if download.leave(progress):
                with anyio.move_on_after(LEAVE_SECONDS, shield=True):
                    await download.thread.ended.wait()
            raise


class SharedDownload:
    """For the event loop; the work alone runs in its thread."""

    def __init__(self, key: str, route: str, work: Work, forget: Callable[[SharedDownload], None]) -> None:
        self.route = route
        self.thread = OwnThread(
            lambda: work(progress=self._file, on_event=lambda event: self._on_event(event), pace=self._pace),
            name=f"fetch {key[:24]}",
            on_end=self._ended,
            on_lost=lambda fetched: fetched.keep(),
        )
        self._forget = forget
        self._jobs: dict[FileProgress, tuple[OnEvent, _Forwarder]] = {}
        self._on_event: OnEvent = unheard
        self._progress = JobProgress()
        (self._file,) = self._progress.files([None])
        self._pace = CommonPace()
        self._committing = anyio.Lock()
        self._fetched: Fetched | None = None
        self._fault: Exception | None = None
        self._committed: tuple[Blob, Fetched] | None = None

    @property
    def abandoned(self) -> bool:
        return self._progress.stopped()

    # -- jobs

    @contextmanager
    def joined(self, progress: FileProgress, on_event: OnEvent, share: Share) -> Iterator[None]:
        self._pace.join(share)
        forwarder = _Forwarder(self._progress, progress)
        self._jobs[progress] = on_event, forwarder
        self._progress.add_listener(forwarder)
        self._choose_on_event()
        try:
            yield
        finally:
            self._pace.leave(share)
            self.leave(progress)

    def leave(self, progress: FileProgress) -> bool:
        """True for the last job: the download ends, and keeps its bytes."""
        if progress not in self._jobs:
            return False
        _, forwarder = self._jobs.pop(progress)
        self._progress.remove_listener(forwarder)
        self._choose_on_event()
        if self._jobs:
            return False
        self._progress.stop_reason = "cancel"
        if self.thread.ended.is_set():
            self._discard()
        return True

    def _choose_on_event(self) -> None:
        """That of one job: all jobs write to the same log."""
        self._on_event = next((on_event for on_event, _ in self._jobs.values()), unheard)

    async def commit(self, ingest: Ingest) -> tuple[Blob, Fetched]:
        """After the thread has ended; the first call commits, the others return the same."""
        async with self._committing:
            if self._fault is not None:
                raise self._fault
            if self._committed is None:
                fetched, self._fetched = self.thread.outcome.result(), None
                try:
                    blob = await ingest.commit(fetched)
                except Exception as fault:
                    self._fault = fault
                    raise
                except BaseException:
                    # Cancelled before it began: the next job commits, and without one the file is kept.
                    self._fetched = fetched
                    raise
                self._committed = blob, fetched
            return self._committed

    def _ended(self) -> None:
        if self.thread.outcome.exception() is None:
            self._fetched = self.thread.outcome.result()
        if self.abandoned or self._fetched is None:
            self._discard()

    def _discard(self) -> None:
        self._forget(self)
        if self._fetched is not None:
            self._fetched.keep()
            self._fetched = None


class _Forwarder:
    """Reports the progress of a shared download to one job. The first report includes what the job has missed, but
    neither bytes from the network nor attempts, which other jobs count."""

    def __init__(self, shared: JobProgress, progress: FileProgress) -> None:
        self._progress = progress
        self._source: str | None = None
        self._attempt = shared.attempt
        self._bytes = (0, 0, 0, shared.network)

    def __call__(self, shared: JobProgress) -> None:
        progress = self._progress
        if shared.source is not None and shared.source != self._source:
            self._source = shared.source
            progress.source(shared.source, shared.address)
        for _attempt in range(shared.attempt - self._attempt):
            progress.attempted()
        self._attempt = shared.attempt
        progress.total(shared.total_bytes)
        before, now = self._bytes, (shared.done, shared.verified, shared.reused, shared.network)
        done, verified, reused, network = map(sub, now, before)
        if now != before:
            self._bytes = now
            progress.advance(done=done, verified=verified, reused=reused, network=network)
        if shared.current_phase != "queued":
            progress.phase(shared.current_phase)
