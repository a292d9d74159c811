"""One attempt to get what is missing of one file from one source: it starts connections, reports progress, and ends
them all.
"""

from __future__ import annotations

import time
from typing import Final

from modeld.download.engine.connection import Connection
from modeld.download.engine.source_file import SourceFile
from modeld.download.routes.outcomes import Network
from modeld.progress import FileProgress, Stopped

_GRACE_SECONDS: Final = 0.2
"""For a connection to end by itself when nothing is left to fetch; then it can be used again."""

_OPENING_SECONDS: Final = 2.0
"""For a source that does not only wait for the network. A connection that is left then ends when `open` returns, and
touches nothing before it does."""


class Attempt:
    def __init__(self, network: Network, source: SourceFile, progress: FileProgress) -> None:
        self._source = source
        self._network = network
        self._tuning = network.tuning
        self._assembly = source.assembly
        self._state = source.assembly.state
        self._file = source.file
        self._progress = progress
        self._threads: list[Connection] = []
        self._started = 0
        self._queued = False
        self._reported = 0

    def run(self) -> None:
        """Returns when every byte is there. Raises GaveUp, Changed, Stopped, or the fault of the store."""
        state = self._state
        self._progress.source(self._source.name, self._file.address)
        self._progress.phase("download")
        complete = False
        try:
            while True:
                if self._progress.stopped():
                    raise Stopped
                with state.lock:
                    if state.fault is not None:
                        raise state.fault
                    if state.segments.complete:
                        complete = True
                        return
                    if self._source.outcome is not None:
                        raise self._source.outcome
                    self._start_connections()
                    state.changed.wait(self._tuning.poll_seconds)
                self._report()
                self._count_connections()
        finally:
            self._leave_queue()
            self._end_connections(_GRACE_SECONDS if complete else 0.0)
            self._report()

    def _start_connections(self) -> None:
        source, segments, now = self._source, self._state.segments, self._network.clock()
        wanted = 1
        if not source.whole and not source.long and segments.missing is not None:
            wanted = min(source.connection_count.target, -(-segments.missing // self._tuning.segment_bytes))
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while len(source.connections) < wanted and (segments.next_free() is not None or segments.slow(now) is not None):
            if not self._may_connect():
                return
            self._started += 1
            connection = Connection(source, self._started)
            try:
                connection.start()
            except BaseException:  # whatever it is, no thread runs that would give the place back
                self._network.hosts.release(self._file.origin)
                raise
            # The lock is held: the thread asks for its first segment after this.
            source.connections.append(connection.bytes)
            self._threads.append(connection)
            if segments.next_free() is None:
                return

    def _may_connect(self) -> bool:
        hosts, origin = self._network.hosts, self._file.origin
        taken = hosts.take(origin, self._file.long_requests, queued=self._queued)
        # Long requests have few places by design, and only the end of one frees a place.
        waits = not taken and not self._source.connections and not self._source.long
        if origin is not None and waits != self._queued:
            self._queued = waits
            (hosts.join_queue if waits else hosts.leave_queue)(origin)
        return taken

    def _leave_queue(self) -> None:
        if self._queued and self._file.origin is not None:
            self._queued = False
            self._network.hosts.leave_queue(self._file.origin)

    def _end_connections(self, grace: float) -> None:
        with self._state.lock:
            self._source.stopping = True
            self._state.wake()
        deadline = time.monotonic() + grace
        for connection in self._threads:
            connection.join(max(0.0, deadline - time.monotonic()))
        deadline = time.monotonic() + _OPENING_SECONDS
        for connection in self._threads:
            while connection.is_alive() and not (connection.opening and time.monotonic() > deadline):
                connection.abort()
                connection.join(self._tuning.poll_seconds)

    def _count_connections(self) -> None:
        source = self._source
        live = len(source.connections)
        count = source.connection_count
        count.observe(self._network.clock(), source.received, live, source.pace.waited)
        self._state.connections[source.name] = count.found  # one thread writes it; the journal's copies it

    def _report(self) -> None:
        received = self._source.received
        self._progress.advance(network=received - self._reported)
        self._reported = received
        self._assembly.report()
