"""The locks of names that this daemon holds, each shared by all of its work on that name.

Other tools wait for them, and the daemon waits for the tools. Among the daemon's own work the publisher's turn decides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from modeld.progress import Stopped
from modeld.store.disk import locks
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import NameLock
from modeld.store.names import ModelName

T = TypeVar("T")

Stop = Callable[[], bool]
"""Whether the request was cancelled; checked while it waits for another tool's lock. `Stopped` follows."""

OnWait = Callable[[str], AbstractAsyncContextManager[None]]
"""Entered once, around the wait, when a request has to wait for another tool; it gets the tool, and what that has."""

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1
"""Another tool releases a lock without notice, so the daemon tries again, less and less often."""


def never() -> bool:
    return False


def alone(_: str) -> AbstractAsyncContextManager[None]:
    """Nobody else has to know of the wait."""
    return nullcontext()


@dataclass(slots=True)
class _Held:
    lock: NameLock
    holders: int = 0


class NameLocks:
    """For the event loop. The first holder in this daemon takes the lock of the file, the last one releases it."""

    def __init__(self, layout: Layout, wait_seconds: float, threads: anyio.CapacityLimiter) -> None:
        self._layout = layout
        self._wait_seconds = wait_seconds
        self._threads = threads
        self._held: dict[str, _Held] = {}

    @asynccontextmanager
    async def held(self, name: ModelName, *, stopped: Stop = never, on_wait: OnWait = alone) -> AsyncIterator[None]:
        """Holds the name among all tools that share the store. After the time limit, `InUse` names the holder.
        `stopped` ends the waiting, with `Stopped`."""
        path = self._layout.name_lock(name)
        async with AsyncExitStack() as waiting:
            await self._acquire(path, name, stopped, on_wait, waiting)
            held = self._held[path]
            try:
                await waiting.aclose()
                if stopped():
                    raise Stopped  # the lock came free after the request was cancelled
                yield
            finally:
                held.holders -= 1
                if not held.holders:
                    del self._held[path]
                    with anyio.CancelScope(shield=True):
                        await self._in_thread(held.lock.release)

    async def _acquire(
        self, path: str, name: ModelName, stopped: Stop, on_wait: OnWait, waiting: AsyncExitStack
    ) -> None:
        deadline = anyio.current_time() + self._wait_seconds
        pause, waited = _FIRST_PAUSE, False
        while not await self._taken(path):
            if stopped():
                raise Stopped
            left = deadline - anyio.current_time()
            if left <= 0:
                raise await self._in_thread(partial(locks.name_in_use, path, name, self._wait_seconds))
            if not waited and pause >= _LONGEST_PAUSE:
                # Not for the moments in which another request of this daemon takes the lock.
                waited = True
                holder = await self._in_thread(partial(locks.name_holder, path))
                await waiting.enter_async_context(on_wait(f"{holder}, which has the lock of the name '{name.text}'"))
            await anyio.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _taken(self, path: str) -> bool:
        if path not in self._held:
            with anyio.CancelScope(shield=True):
                lock = await self._in_thread(partial(NameLock.take, path))
            if lock is not None:
                self._held[path] = _Held(lock)
        if path not in self._held:
            return False
        self._held[path].holders += 1
        return True

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._threads)
