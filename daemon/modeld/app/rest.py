"""What the daemon does when its last job has ended: it gives back the memory that jobs needed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Final

from modeld.app.interpreter import Pauses
from modeld.jobs.board import Board
from modeld.platform import memory
from modeld.store.catalog.catalog import Catalog
from modelwire.errors import WireError

AFTER_SECONDS: Final = 2.0
"""Jobs that follow each other this closely share the memory. One timer, and no wake-up while nothing happens."""


FREES_CYCLES_EVERY_SECONDS: Final = 60.0
"""It keeps all clients waiting for some 50 ms."""


class Rest:
    """For the event loop. The work itself is done in a thread: the C library walks its whole heap."""

    def __init__(self, board: Board, catalog: Catalog, loop: asyncio.AbstractEventLoop, pauses: Pauses) -> None:
        self._board = board
        self._catalog = catalog
        self._loop = loop
        self._pauses = pauses
        self._cycles_freed = -FREES_CYCLES_EVERY_SECONDS
        self._timer: asyncio.TimerHandle | None = None

    def job_ended(self) -> None:
        if self._timer is None:
            self._wait(AFTER_SECONDS)

    def _wait(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        runner = self._board.runner
        left = runner.last_end + AFTER_SECONDS - self._loop.time()
        if left > 0:
            self._wait(left)
            return
        self._timer = None
        if not self._board.is_working:  # else the end of one calls again
            threading.Thread(target=self._give_back, args=[self._loop.time()], name="modeld-rest", daemon=True).start()

    def _give_back(self, now: float) -> None:
        if now - self._cycles_freed >= FREES_CYCLES_EVERY_SECONDS:
            self._cycles_freed = now
            self._pauses.free_cycles()
        with contextlib.suppress(WireError):  # it is closed: the daemon stops
            self._catalog.give_back()
        memory.give_back()
