"""Waiting, always with a deadline, for what has no event of its own."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio


async def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in threads and processes
            await anyio.sleep(0.002)


def wait_until(condition: Callable[[], object], seconds: float = 20.0, what: str = "the condition") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.01)


async def all_wait() -> None:
    """Until all tasks wait for something. anyio's function looks each 0.1 s: a task that wakes up as often was awake at
    each look, for as long as the test let it."""
    while True:
        with anyio.move_on_after(0.037) as looking:
            await anyio.wait_all_tasks_blocked()
        if not looking.cancelled_caught:
            return
