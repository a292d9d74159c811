"""When the daemon ends: by signal, on request, for want of work, or because its endpoint is no longer its own.

A stop has two stages. The first takes no new work, gives what runs until the deadline, and parks the rest for the next
start; every client gets its terminal reply. A second signal ends at once: a crash is something that the next start
mends anyway.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import anyio
import structlog

from modeld.jobs.board import Board
from modeld.platform import endpoint
from modeld.server import Server
from modelwire import exits

log = structlog.get_logger("modeld.lifetime")

_ENDED_AT_ONCE = 128 + signal.SIGTERM
"""The exit code that a shell shows for a process that SIGTERM ended."""


class Lifetime:
    """Waits for a reason to stop; `reason`, `deadline` and `exit_code` say which."""

    def __init__(self, deadline: float) -> None:
        self._stop = anyio.Event()
        self._signalled = False
        self.deadline = deadline
        self.reason = ""
        self.exit_code = exits.FINE

    def stop(self, reason: str, *, deadline: float | None = None, exit_code: int = exits.FINE) -> float:
        """The first reason counts; the deadline that is in force is given back."""
        if not self._stop.is_set():
            self.reason, self.exit_code = reason, exit_code
            if deadline is not None:
                self.deadline = deadline
            log.info("stopping", reason=reason, deadline_s=self.deadline)
            self._stop.set()
        return self.deadline

    async def until_stop(self) -> None:
        await self._stop.wait()

    async def mind_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                name = signal.Signals(number).name
                if self._signalled:
                    log.warning("stopped by a second signal: the next start takes up what is left", signal=name)
                    os._exit(_ENDED_AT_ONCE)
                self._signalled = True
                # A stop that a client has asked for is not cut short by the service manager's, which comes after it.
                log.info("signal", signal=name)
                self.stop(name)

    async def mind_endpoint(self, listening: endpoint.Endpoint, every: float) -> None:
        """A daemon that nobody can reach must not hold the locks of one that could be reached."""
        while listening.still_ours():  # noqa: ASYNC110 - an unlink by another program is no event here
            await anyio.sleep(every)
        log.error("the endpoint was removed or replaced", socket=listening.path)
        self.stop("the endpoint is no longer ours", exit_code=exits.FAILED)

    async def mind_idleness(self, server: Server, board: Board, patience: float) -> None:
        """Ends a daemon that a client started once nobody has needed it for a while.

        One wake-up for each `patience`, not a poll: a quiet daemon sleeps until the moment at which it would end.
        """
        clock: Callable[[], float] = server.shared.loop.time
        while True:
            busy = server.shared.peer_limits.count > 0 or any(job.state != "paused" for job in board.jobs)
            quiet_since = clock() if busy else max(server.shared.last_activity, board.runner.last_end)
            remaining = quiet_since + patience - clock()
            if remaining <= 0 and server.stop_accepting_if_empty():
                self.stop(f"nobody needed the daemon for {patience:g} s")
                return
            await anyio.sleep(remaining if remaining > 0 else patience)
