"""Work that blocks for long, in a thread that its caller may abandon: a silent host does not answer for half a minute.

Unlike a thread of the usual pool, an abandoned one does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

import anyio

from modeld.progress import Stopped

T = TypeVar("T")

POLL_SECONDS: Final = 0.05
"""How soon `wait` notices that its caller is stopped."""


class OwnThread(Generic[T]):
    """For the event loop, which also calls `on_end`. When that loop is gone, the thread calls `on_lost` with the
    result."""

    def __init__(
        self,
        work: Callable[[], T],
        *,
        name: str,
        on_end: Callable[[], None] = lambda: None,
        on_lost: Callable[[T], object] = lambda _: None,
    ) -> None:
        self.ended = anyio.Event()
        self.outcome = Future[T]()
        self._work = work
        self._on_end = on_end
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        try:
            self._thread.start()
        except BaseException as fault:
            self.outcome.set_exception(fault)
            self._end()
            raise

    async def wait(self, stopped: Callable[[], bool]) -> None:
        """Returns when the work has ended. Raises Stopped as soon as `stopped()` is true; the work goes on alone."""
        while not self.ended.is_set():
            if stopped():
                raise Stopped
            with anyio.move_on_after(POLL_SECONDS):
                await self.ended.wait()

    def _run(self) -> None:
        try:
            self.outcome.set_result(self._work())
        except BaseException as fault:  # noqa: BLE001 - the callers that wait for the outcome raise it
            self.outcome.set_exception(fault)
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:  # the loop is gone: the daemon has stopped without waiting
            if self.outcome.exception() is None:
                self._on_lost(self.outcome.result())

    def _end(self) -> None:
        self.ended.set()
        self._on_end()
