"""Waiting for what blocks for long, and may be left: a host that is silent answers nobody for half a minute.

The thread is left to itself then, and must not keep the process from ending: those of the usual pool would.
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


class _Outcome(Generic[T]):
    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.values: list[T] = []
        self.fault: BaseException | None = None


async def in_own_thread(work: Callable[[], T], stopped: Callable[[], bool], *, name: str) -> T:
    """What `work` gives or raises; Stopped as soon as nobody wants it, or Cancelled as usual: it goes on alone then,
    and what it comes to is dropped."""
    loop = asyncio.get_running_loop()
    outcome = _Outcome[T]()

    def run() -> None:
        try:
            outcome.values.append(work())
        except BaseException as fault:  # noqa: BLE001 - raised where it is waited for
            outcome.fault = fault
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(outcome.ended.set)

    threading.Thread(target=run, name=name, daemon=True).start()
    while not outcome.ended.is_set():
        if stopped():
            raise Stopped
        with anyio.move_on_after(LOOK_SECONDS):
            await outcome.ended.wait()
    if outcome.fault is not None:
        raise outcome.fault
    return outcome.values[0]
