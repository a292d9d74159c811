"""When the daemon stops: on a signal, on request, when it is idle, or because it has lost its endpoint.

A stop has two stages. The first admits no work, waits for running jobs until the deadline, and keeps the others for the
next start; every client gets its terminal reply. A second signal ends the process at once: the next start recovers, as
after a crash.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread
import structlog

from modeld.jobs.board import Board
from modeld.platform import endpoint
from modeld.server import Server
from modelwire import exits

log = structlog.get_logger("modeld.lifetime")

_CLOSING_SECONDS = 5.0
"""For what is left after the drain: threads that end, the last records, the catalogue's checkpoint. All of it takes
milliseconds, or for ever on a disk that hangs; a daemon that is killed then loses nothing that was acknowledged."""

_ENDED_AT_ONCE = 128 + signal.SIGTERM
"""The exit code that a shell shows for a process that SIGTERM ended."""


LONGEST_STAY_SECONDS: Final = 2 * 3600.0
"""For a sweep: more than the usual grace period. What is due later is swept by a later run of the daemon."""


class Lifetime:
    """Waits for the first reason to stop, and keeps it with its deadline and exit code."""

    def __init__(self, deadline: float, flush_log: Callable[[], object] = lambda: None) -> None:
        """`flush_log` writes the log's last lines before the process ends at once; it takes a second at most."""
        self._stop = anyio.Event()
        self._flush_log = flush_log
        self._signalled = False
        self.deadline = deadline
        self.reason = ""
        self.exit_code = exits.FINE

    def stop(self, reason: str, *, deadline: float | None = None, exit_code: int = exits.FINE) -> float:
        """Only the first call has an effect. Returns the deadline in force."""
        if not self._stop.is_set():
            self.reason, self.exit_code = reason, exit_code
            if deadline is not None:
                self.deadline = deadline
            log.info("stopping", reason=reason, deadline_s=self.deadline)
            self._stop.set()
        return self.deadline

    async def until_stop(self) -> None:
        await self._stop.wait()

    async def stop_on_signal(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                name = signal.Signals(number).name
                if self._signalled:
                    log.warning("stopped at once by a second signal; the next start resumes the jobs", signal=name)
                    self._flush_log()
                    os._exit(_ENDED_AT_ONCE)
                self._signalled = True
                # After a client's request to stop, the service manager's first signal does not cut the drain short.
                log.info("signal", signal=name)
                self.stop(name)

    def end_in_time(self) -> None:
        """Ends the process after `_CLOSING_SECONDS`, if it has not ended by then: a disk that hangs holds threads for
        which Python would wait."""

        def end() -> None:
            log.warning("the daemon ends without waiting: a disk does not answer")
            self._flush_log()
            os._exit(self.exit_code)

        timer = threading.Timer(_CLOSING_SECONDS, end)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError as fault:  # the daemon's user may have no more threads: what is to be written still is
            log.warning("the end has no time limit", error=str(fault))

    async def stop_on_lost_endpoint(self, listening: endpoint.Endpoint, every: float) -> None:
        """A daemon that no client can reach must not keep the locks from one that clients could reach."""
        ended = threading.Event()

        def look() -> None:
            while listening.still_ours() and not ended.wait(every):  # an unlink by another program sends no event
                pass

        try:
            await anyio.to_thread.run_sync(look, limiter=anyio.CapacityLimiter(1), abandon_on_cancel=True)
        finally:
            ended.set()
        log.error("the endpoint was removed or replaced", socket=listening.path)
        self.stop("the endpoint was removed or replaced", exit_code=exits.FAILED)

    async def stop_when_idle(
        self, server: Server, board: Board, limit: float, sweep_in: Callable[[], float | None]
    ) -> None:
        """Stops the daemon after `limit` seconds without a connection or an unfinished job; paused jobs and work in the
        background do not count. It stays for a sweep that is due soon: `sweep_in` returns the seconds until then, None
        when none is due.

        Wakes once in `limit` seconds, not in a poll: an idle daemon sleeps until it would stop.
        """
        clock: Callable[[], float] = server.shared.loop.time
        while True:
            busy = server.shared.peer_limits.count > 0 or board.has_work
            idle_since = clock() if busy else max(server.shared.last_activity, board.runner.last_end)
            remaining = idle_since + limit - clock()
            until_sweep = sweep_in()
            if until_sweep is not None and until_sweep < LONGEST_STAY_SECONDS:
                remaining = max(remaining, until_sweep + 1)
            if remaining <= 0 and server.stop_accepting_if_empty():
                self.stop(f"idle for {limit:g} s")
                return
            await anyio.sleep(remaining if remaining > 0 else limit)
