"""The publisher's turn: one change of visible names at a time, the earliest admitted job first.

Byte work runs in parallel, so jobs finish in any order; what readers see still changes in the order of admission among
those that are ready, and never twice at once. Correctness does not depend on it (no publication replaces a model by
accident, even without the turn): the turn makes the order predictable, and keeps check-then-publish from losing work.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio


@dataclass(order=True, slots=True)
class _Waiter:
    order: int
    number: int
    granted: anyio.Event = field(compare=False)
    gone: bool = field(compare=False, default=False)


class Publisher:
    """For one event loop; only the task that holds the turn may publish."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: list[_Waiter] = []
        self._numbers = itertools.count()

    @asynccontextmanager
    async def turn(self, order: int) -> AsyncIterator[None]:
        """Holds the turn. `order` is the job's place of admission; the lowest waiting order is next."""
        if self._taken:
            await self._wait(order)
        else:
            self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, order: int) -> None:
        waiter = _Waiter(order, next(self._numbers), anyio.Event())
        heapq.heappush(self._waiting, waiter)
        try:
            await waiter.granted.wait()
        except BaseException:
            # Cancelled in the same step in which the turn was granted: this task holds it, and others wait.
            if waiter.granted.is_set():
                self._pass_on()
            else:
                waiter.gone = True
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            waiter = heapq.heappop(self._waiting)
            if not waiter.gone:
                waiter.granted.set()
                return
        self._taken = False
