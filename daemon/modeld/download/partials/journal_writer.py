"""The thread that writes the journal: it syncs what connections have written, then records it, many pieces per sync."""

from __future__ import annotations

import threading
import time

from modeld.download.partials.partial import Partial
from modeld.download.partials.shared_state import SharedState


class JournalWriter(threading.Thread):
    """Ends after `state.ended`, with everything journalled; with `state.fault` when the disk fails."""

    def __init__(self, state: SharedState, partial: Partial, *, longest_wait: float) -> None:
        super().__init__(name="modeld-journal", daemon=True)
        self._state = state
        self._partial = partial
        self._longest_wait = longest_wait
        """Seconds that pieces wait for more of them while no connection waits for the journal."""

    def run(self) -> None:
        try:
            while self._write():
                pass
        except BaseException as fault:  # noqa: BLE001 - the attempt raises it again
            self._state.fail(fault)

    def _write(self) -> bool:
        state = self._state
        with state.lock:
            deadline = None
            while not state.ended and state.fault is None and not state.urgent:
                if state.pending and deadline is None:
                    deadline = time.monotonic() + self._longest_wait
                if deadline is not None and time.monotonic() >= deadline:
                    break
                state.may_journal.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if state.fault is not None:
                return False
            state.urgent = False
            pending, state.pending, state.pending_bytes = state.pending, [], 0
            found, last = dict(state.connections), state.ended
        if pending:
            self._partial.record([piece for piece, _ in pending], found)
            with state.lock:
                for piece, connection in pending:
                    connection.unjournalled -= piece.end - piece.start
                state.may_fetch.notify_all()
        return not last
