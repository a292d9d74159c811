"""Work that blocks for long, in a thread that may be left to itself: a silent host answers nobody for half a minute.

Such a thread must not keep the process from ending, as those of the usual pool would.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import anyio

from modeld.progress import Stopped

T = TypeVar("T")

LOOK_SECONDS: Final = 0.05
"""How soon a waiter that is stopped notices."""


def _nothing(*_: object) -> None:
    pass


class OwnThread(Generic[T]):
    """For the event loop, which `on_end` is called on; `on_lost` gets what was made for a loop that is gone, in the
    thread."""

    def __init__(
        self,
        work: Callable[[], T],
        *,
        name: str,
        on_end: Callable[[], None] = _nothing,
        on_lost: Callable[[T], None] = _nothing,
    ) -> None:
        self.ended = anyio.Event()
        self._work = work
        self._on_end = on_end
        self._on_lost = on_lost
        self._values: list[T] = []
        self.fault: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        try:
            self._thread.start()
        except BaseException as fault:
            self.fault = fault
            self._end()
            raise

    async def wait(self, stopped: Callable[[], bool]) -> None:
        """Until the work has ended. Raises Stopped as soon as `stopped()` is true; the work goes on."""
        while not self.ended.is_set():
            if stopped():
                raise Stopped
            with anyio.move_on_after(LOOK_SECONDS):
                await self.ended.wait()

    def result(self) -> T:
        """After the end: what the work returned or raised."""
        if self.fault is not None:
            raise self.fault
        return self._values[0]

    def _run(self) -> None:
        try:
            self._values.append(self._work())
        except BaseException as fault:  # noqa: BLE001 - raised by `result`
            self.fault = fault
        with contextlib.suppress(RuntimeError):  # the loop is gone: the daemon has stopped without waiting
            self._loop.call_soon_threadsafe(self._end)
            return
        for value in self._values:
            self._on_lost(value)

    def _end(self) -> None:
        self.ended.set()
        self._on_end()


async def in_own_thread(work: Callable[[], T], stopped: Callable[[], bool], *, name: str) -> T:
    """What `work` returns or raises; Stopped as soon as `stopped()` is true, or Cancelled as usual: it goes on alone
    then, and its result is dropped."""
    thread = OwnThread(work, name=name)
    thread.start()
    await thread.wait(stopped)
    return thread.result()
