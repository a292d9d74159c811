"""One download for many: jobs that want the same bytes share it, and it ends when the last of them has left.

A download has a thread of its own, and no job owns it: the one that began it may be cancelled while others wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import sub
from typing import Final, NamedTuple

import anyio

from modeld.download.engine.assembly import Fetched
from modeld.download.engine.budget import CommonPace, Pace, Share
from modeld.download.routes.events import OnEvent, TransferEvent, unheard
from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.pulls.own_thread import OwnThread
from modeld.store.blobs.blobs import Blob
from modeld.store.ingest.ingest import Ingest
from modeld.store.ingest.look import Learned

Work = Callable[[FileProgress, OnEvent, Pace], Fetched]
"""Blocks until the file is whole, verified and durable."""

LEAVE_SECONDS: Final = 3.0
"""How long the last job waits for the connections to end and the journal to be written. That takes milliseconds; a
disk that hangs must not keep a cancelled job from ending."""


class Downloaded(NamedTuple):
    blob: Blob
    served: Mapping[str, int]
    """Which source gave how many of its bytes."""

    as_described: bool
    """These are the bytes of the version that was described."""

    learned: Learned | None
    """What the bytes say about themselves."""


class SharedDownloads:
    """Of one daemon, by what is fetched."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._by_key: dict[str, SharedDownload] = {}

    async def fetch(
        self, key: str, route: str, work: Work, progress: FileProgress, on_event: OnEvent, share: Share
    ) -> Downloaded:
        """Raises Stopped when `progress` says that this job is stopped."""
        while True:
            download = self._by_key.get(key)
            if download is not None and download.abandoned:
                await download.thread.wait(progress.stopped)
                continue
            began = download is None
            if download is None:
                download = self._by_key[key] = SharedDownload(key, route, work, partial(self._forget, key))
            try:
                with download.joined(progress, on_event, share):
                    if began:
                        download.thread.start()
                    return await self._follow(download, progress)
            except Stopped:
                raise
            except Exception:
                # Another route asked other sources than this job would.
                if began or download.route == route:
                    raise

    def _forget(self, key: str, download: SharedDownload) -> None:
        if self._by_key.get(key) is download:
            del self._by_key[key]

    async def _follow(self, download: SharedDownload, progress: FileProgress) -> Downloaded:
        try:
            await download.thread.wait(progress.stopped)
            return await download.commit(self._ingest)
        except Stopped:
            if download.leave(progress):
                with anyio.move_on_after(LEAVE_SECONDS, shield=True):
                    await download.thread.ended.wait()
            raise


class SharedDownload:
    """For the event loop, but for `_download` and `_event`, which run in its thread."""

    def __init__(self, key: str, route: str, work: Work, forget: Callable[[SharedDownload], None]) -> None:
        self.route = route
        self.thread = OwnThread(
            partial(self._download, work),
            name=f"fetch {key[:24]}",
            on_end=self._ended,
            on_lost=lambda fetched: fetched.keep(),
        )
        self._forget = forget
        self._jobs: dict[FileProgress, tuple[OnEvent, _Forward]] = {}
        self._on_event: OnEvent = unheard
        self._progress = JobProgress()
        (self._file,) = self._progress.files([None])
        self._pace = CommonPace()
        self._committing = anyio.Lock()
        self._fetched: Fetched | None = None
        self._fault: Exception | None = None
        self._downloaded: Downloaded | None = None

    @property
    def abandoned(self) -> bool:
        return self._progress.stopped()

    # -- jobs

    @contextmanager
    def joined(self, progress: FileProgress, on_event: OnEvent, share: Share) -> Iterator[None]:
        self._pace.join(share)
        forward = _Forward(self._progress, progress)
        self._jobs[progress] = on_event, forward
        self._progress.add_listener(forward)
        self._choose_hearer()
        try:
            yield
        finally:
            self._pace.leave(share)
            self.leave(progress)

    def leave(self, progress: FileProgress) -> bool:
        """True for the last one: the download ends, and keeps what it has."""
        if progress not in self._jobs:
            return False
        _, forward = self._jobs.pop(progress)
        self._progress.remove_listener(forward)
        self._choose_hearer()
        if self._jobs:
            return False
        self._progress.stop_reason = "cancel"
        if self.thread.ended.is_set():
            self._discard()
        return True

    def _choose_hearer(self) -> None:
        """One: all jobs are heard in one log."""
        self._on_event = next((on_event for on_event, _ in self._jobs.values()), unheard)

    async def commit(self, ingest: Ingest) -> Downloaded:
        """After the end: the first job that comes names the blob."""
        async with self._committing:
            if self._fault is not None:
                raise self._fault
            if self._downloaded is None:
                fetched, self._fetched = self.thread.outcome.result(), None
                try:
                    blob = await ingest.commit(fetched)
                except Exception as fault:
                    self._fault = fault
                    raise
                except BaseException:
                    # Cancelled before it began: the next job does it, and without one the file is kept.
                    self._fetched = fetched
                    raise
                self._downloaded = Downloaded(blob, fetched.served, fetched.as_described, fetched.learned)
            return self._downloaded

    # -- the thread

    def _download(self, work: Work) -> Fetched:
        return work(self._file, self._event, self._pace)

    def _event(self, event: TransferEvent) -> None:
        self._on_event(event)

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


class _Forward:
    """Reports to one job what a shared download reports; first what the job has missed, but neither bytes from the
    network nor attempts, which were not for it."""

    def __init__(self, shared: JobProgress, progress: FileProgress) -> None:
        self._progress = progress
        self._source: str | None = None
        self._attempt = shared.attempt
        self._bytes = (0, 0, 0, shared.network)

    def __call__(self, shared: JobProgress) -> None:
        progress = self._progress
        if shared.source is not None and shared.source != self._source:
            self._source = shared.source
            progress.source(shared.source)
        for _more in range(shared.attempt - self._attempt):
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
