"""Work that blocks for long, in a thread that its caller may abandon: a silent host does not answer for half a minute.

Unlike a thread of the usual pool, an abandoned one does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import anyio

from modeld.download.cancel_scope import CancelScope
from modeld.progress import Stopped

T = TypeVar("T")

POLL_SECONDS: Final = 0.05
"""How soon a caller notices that it is stopped."""

LEAVE_SECONDS: Final = 3.0
"""How long a caller waits for work that it has left. That takes milliseconds; a disk that hangs must not keep a
cancelled job from ending."""


async def in_own_thread(
    work: Callable[[], T],
    *,
    name: str,
    stopped: Callable[[], bool] = lambda: False,
    scope: CancelScope | None = None,
) -> T:
    """Raises Stopped as soon as `stopped()` is true. The work is left then: its scope is cancelled, which ends what it
    asks of the network. Only work that hangs elsewhere goes on alone."""
    scope = scope or CancelScope()
    outcome, loop = Future[T](), asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            with scope:
                outcome.set_result(work())
        except BaseException as fault:  # noqa: BLE001 - the caller raises it
            outcome.set_exception(fault)
        with contextlib.suppress(RuntimeError):  # the loop is gone: the daemon has stopped without waiting
            loop.call_soon_threadsafe(ended.set_result, None)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        await until_done(ended, stopped)
    except BaseException:  # whatever it is, the work is left
        scope.cancel()
        with anyio.move_on_after(LEAVE_SECONDS, shield=True):
            await asyncio.wait([ended])
        raise
    return outcome.result()


async def until_done(future: asyncio.Future[Any], stopped: Callable[[], bool]) -> None:
    """Leaves the future alone when the caller is cancelled, and when it raises Stopped because `stopped()` is true."""
    while not future.done():
        if stopped():
            raise Stopped
        await asyncio.wait([future], timeout=POLL_SECONDS)
