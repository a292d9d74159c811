"""A call of the catalogue: a function for the thread that owns it, and the way of its outcome to the caller."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol


class Settleable(Protocol):
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...
    def done(self) -> bool: ...


@dataclass(slots=True)
class Call:
    """A function for the owner thread. A call from an event loop has that loop."""

    run: Callable[[sqlite3.Connection], Any]
    writes: bool
    future: Settleable
    loop: asyncio.AbstractEventLoop | None
    committed: Callable[[Any], None] | None = None
    alone: Callable[[], None] | None = None
    """Runs instead of the function, outside of any transaction, after the calls that came before."""
    value: Any = None
    error: BaseException | None = None


def deliver(batch: list[Call]) -> None:
    """One hop into each event loop for the whole batch: a hop costs more than the call itself."""
    loops: dict[asyncio.AbstractEventLoop | None, list[Call]] = {}
    for call in batch:
        loops.setdefault(call.loop, []).append(call)
    for loop, calls in loops.items():
        if loop is None:
            _settle(calls)
            continue
        # The loop ended while its calls ran: no caller waits for them, and what was written stays written.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, calls)


def _settle(calls: Iterable[Call]) -> None:
    for call in calls:
        if call.future.done():
            continue  # the caller was cancelled
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.value)
