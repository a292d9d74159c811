"""Waiting that ends when the job is stopped, whatever is waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from modeld.store.observer import Stopped

T = TypeVar("T")

LOOK_SECONDS: Final = 0.05


async def stoppable(stopped: Callable[[], bool], work: Awaitable[T]) -> T:
    """What `work` gives or raises; Stopped as soon as nobody wants it. It is cancelled then."""
    results: list[T] = []
    faults: list[Exception] = []

    async def watch(scope: anyio.CancelScope) -> None:
        while not stopped():  # noqa: ASYNC110 - byte threads and the runner set a flag, which is no event
            await anyio.sleep(LOOK_SECONDS)
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, tasks.cancel_scope)
        try:
            results.append(await work)
        except Exception as fault:  # noqa: BLE001 - raised below, out of the group that would wrap it
            faults.append(fault)
        tasks.cancel_scope.cancel()
    if faults:
        raise faults[0]
    if not results:
        raise Stopped
    return results[0]
