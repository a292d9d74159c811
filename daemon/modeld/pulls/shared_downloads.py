"""One fetch for many: jobs that want the same bytes share their transfer, and it ends when the last has left.

A flight has a thread of its own, and no asker is its owner: whoever began it may be cancelled while others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

import anyio

from modeld.download.engine.assembly import Fetched
from modeld.download.engine.budget import CommonPace, Pace, Share
from modeld.download.routes.events import OnEvent, TransferEvent, unheard
from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.store.blobs.blobs import Blob
from modeld.store.ingest.downloaded import Arrivals

Work = Callable[[FileProgress, OnEvent, Pace], Fetched]
"""Blocks until the file is whole, verified and durable."""

LOOK_SECONDS: Final = 0.05
"""How soon an asker that is stopped notices."""

LEAVE_SECONDS: Final = 3.0
"""How long the last asker waits for the connections to end and the journal to be written. That takes milliseconds; a
disk that hangs must not keep a cancelled job from ending."""


class Landed(NamedTuple):
    """What a transfer came to."""

    blob: Blob
    served: Mapping[str, int]
    """Which source gave how much of it."""

    as_described: bool
    """These are the bytes of the version that was described."""


class Flights:
    """Of one daemon, by what is fetched."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._by_key: dict[str, Flight] = {}

    async def fetch(
        self, key: str, route: str, work: Work, progress: FileProgress, on_event: OnEvent, share: Share
    ) -> Landed:
        """Raises Stopped when this asker is stopped."""
        while True:
            flight = self._by_key.get(key)
            if flight is not None and flight.deserted:
                await _until(flight.ended, progress)
                continue
            began = flight is None
            if flight is None:
                flight = self._by_key[key] = Flight(partial(self._forget, key), route)
            try:
                with flight.joined(progress, on_event, share):
                    if began:
                        flight.begin(work, key)
                    return await self._follow(flight, progress)
            except Stopped:
                raise
            except Exception:
                # It asked other sources than this asker would.
                if began or flight.route == route:
                    raise

    def _forget(self, key: str, flight: Flight) -> None:
        if self._by_key.get(key) is flight:
            del self._by_key[key]

    async def _follow(self, flight: Flight, progress: FileProgress) -> Landed:
        try:
            await _until(flight.ended, progress)
            return await flight.land(self._arrivals)
        except Stopped:
            if flight.leave(progress):
                with anyio.move_on_after(LEAVE_SECONDS, shield=True):
                    await flight.ended.wait()
            raise


async def _until(ended: anyio.Event, progress: FileProgress) -> None:
    while not ended.is_set():
        if progress.stopped():
            raise Stopped
        with anyio.move_on_after(LOOK_SECONDS):
            await ended.wait()


class Flight:
    """On the event loop, but for what its thread calls: `_run` and `_event`."""

    def __init__(self, forget: Callable[[Flight], None], route: str) -> None:
        self.route = route
        self.ended = anyio.Event()
        self._forget = forget
        self._askers: dict[FileProgress, tuple[OnEvent, _Forward]] = {}
        self._heard: OnEvent = unheard
        self._progress = JobProgress()
        (self._file,) = self._progress.files([None])
        self._pace = CommonPace()
        self._loop = asyncio.get_running_loop()
        self._committing = anyio.Lock()
        self._fetched: Fetched | None = None
        self._fault: BaseException | None = None
        self._came: Landed | None = None

    @property
    def deserted(self) -> bool:
        return self._progress.stopped()

    # -- askers

    @contextmanager
    def joined(self, progress: FileProgress, on_event: OnEvent, share: Share) -> Iterator[None]:
        self._pace.join(share)
        forward = _Forward(self._progress, progress)
        self._askers[progress] = on_event, forward
        self._progress.add_listener(forward)
        self._choose_hearer()
        try:
            yield
        finally:
            self._pace.leave(share)
            self.leave(progress)

    def leave(self, progress: FileProgress) -> bool:
        """True for the last one: the transfer ends, and keeps what it has."""
        if progress not in self._askers:
            return False
        _, forward = self._askers.pop(progress)
        self._progress.remove_listener(forward)
        self._choose_hearer()
        if self._askers:
            return False
        self._progress.stop_reason = "cancel"
        if self.ended.is_set():
            self._end()
        return True

    def _choose_hearer(self) -> None:
        """One: all of them are heard in one log."""
        self._heard = next((on_event for on_event, _ in self._askers.values()), unheard)

    async def land(self, arrivals: Arrivals) -> Landed:
        """After the end: the first who comes gives the blob its name."""
        async with self._committing:
            if self._fault is not None:
                raise self._fault
            if self._came is None:
                assert self._fetched is not None, "a transfer without a fault has brought a file"
                fetched, self._fetched = self._fetched, None
                try:
                    blob = await arrivals.commit(fetched.staged.digest, fetched.commit)
                    self._came = Landed(blob, fetched.served, fetched.as_described)
                except Exception as fault:
                    self._fault = fault
                    raise
                except BaseException:
                    # Cancelled before it began: the next who comes does it, and when nobody does, it is kept.
                    self._fetched = fetched
                    raise
            return self._came

    # -- the thread

    def begin(self, work: Work, key: str) -> None:
        threading.Thread(target=self._run, args=(work,), name=f"fetch {key[:24]}", daemon=True).start()

    def _run(self, work: Work) -> None:
        fetched: Fetched | None = None
        fault: BaseException | None = None
        try:
            fetched = work(self._file, self._event, self._pace)
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for it
            fault = error
        with contextlib.suppress(RuntimeError):  # the loop is gone: the daemon has stopped without waiting
            self._loop.call_soon_threadsafe(self._landed, fetched, fault)
            return
        if fetched is not None:
            fetched.keep()

    def _event(self, event: TransferEvent) -> None:
        self._heard(event)

    def _landed(self, fetched: Fetched | None, fault: BaseException | None) -> None:
        self._fetched, self._fault = fetched, fault
        self.ended.set()
        if self.deserted or fault is not None:
            self._end()

    def _end(self) -> None:
        self._forget(self)
        if self._fetched is not None:
            self._fetched.keep()
            self._fetched = None


class _Forward:
    """Reports to one job what a shared download reports; first what it has missed, but neither bytes from the network
    nor attempts, which were not for it."""

    def __init__(self, shared: JobProgress, progress: FileProgress) -> None:
        self._progress = progress
        self._done = self._verified = self._reused = 0
        self._network, self._attempt = shared.network, shared.attempt
        self._source: str | None = None

    def __call__(self, shared: JobProgress) -> None:
        progress = self._progress
        if shared.source != self._source and shared.source is not None:
            self._source = shared.source
            progress.source(shared.source)
        for _more in range(shared.attempt - self._attempt):
            progress.attempted()
        progress.total(shared.total_bytes)
        progress.advance(
            done=shared.done - self._done,
            verified=shared.verified - self._verified,
            reused=shared.reused - self._reused,
            network=shared.network - self._network,
        )
        self._done, self._verified, self._reused = shared.done, shared.verified, shared.reused
        self._network, self._attempt = shared.network, shared.attempt
        if shared.current_phase != "queued":
            progress.phase(shared.current_phase)
