"""The journal's thread: syncs what connections have written, then vouches for it; many pieces in one sync."""

from __future__ import annotations

import threading
import time

from modeld.download.partials.partial import Partial
from modeld.download.partials.state import State


class Journalling(threading.Thread):
    """Ends, with everything journalled, after `state.ended`; with `state.fault` when the disk fails."""

    def __init__(self, state: State, partial: Partial, *, patience: float) -> None:
        super().__init__(name="modeld-journal", daemon=True)
        self._state = state
        self._partial = partial
        self._patience = patience
        """How long pieces may wait for company when no connection waits for them."""

    def run(self) -> None:
        try:
            while self._write():
                pass
        except BaseException as fault:  # noqa: BLE001 - raised again by who watches
            self._state.fail(fault)

    def _write(self) -> bool:
        state = self._state
        with state.lock:
            deadline = None
            while not state.ended and state.fault is None and not state.urgent:
                if state.pending and deadline is None:
                    deadline = time.monotonic() + self._patience
                if deadline is not None and time.monotonic() >= deadline:
                    break
                state.unsynced.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if state.fault is not None:
                return False
            state.urgent = False
            pending, state.pending = state.pending, []
            last = state.ended
        if pending:
            self._partial.record([piece for piece, _ in pending])
            with state.lock:
                for piece, debt in pending:
                    debt.bytes -= piece.end - piece.start
                state.room.notify_all()
        return not last
