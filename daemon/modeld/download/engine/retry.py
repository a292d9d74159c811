"""How long one source is tried for one file: rounds of failures, waiting, and what a failure says about its host.

Failures of one round count once: when a server dies, all its connections break.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from modeld.download.partials.state import State
from modeld.download.routes.backoff import delay
from modeld.download.routes.events import EventKind
from modeld.download.routes.outcomes import GaveUp, Net, Quit
from modelwire.errors import SourceUnavailable, WireError


class Tell(Protocol):
    def __call__(self, kind: EventKind, reason: str, *, attempt: int = 1, delay_s: float = 0.0) -> None: ...


@dataclass(slots=True, kw_only=True, eq=False)
class Patience:
    """Called by connections, several at once; blocks them as long as the source is to be left alone."""

    net: Net
    state: State
    origin: str | None
    tell: Tell
    attempted: Callable[[], None]
    give_up: Callable[[GaveUp], None]
    has_alternative: Callable[[], bool]
    stopping: Callable[[], bool]
    round: int = 0
    have: int = 0
    """Bytes that were here when the last round ended."""

    _have_at_failure: int = 0
    _failures: int = 0
    _not_before: float = 0.0

    def __post_init__(self) -> None:
        self.have = self._have_at_failure = self.state.segments.have.total

    def admit(self) -> None:
        """Blocks until the source may be asked, or raises Quit. Who comes back must tell how it went."""
        told = False
        while True:
            with self.state.lock:
                if self.stopping():
                    raise Quit
                wait = self._not_before - self.net.clock()
                if wait > 0:
                    self.state.room.wait(wait)
                    continue
            if self.net.breakers.allow(self.origin):
                return
            wait = self.net.breakers.wait(self.origin)
            reason = f"{self.origin} failed too often and is left alone for {wait:.0f} s more"
            if self.has_alternative():
                self.give_up(GaveUp(SourceUnavailable(reason, retry_after_ms=round(wait * 1000))))
                raise Quit
            if not told:
                told = True
                self.tell("waiting", reason, delay_s=wait)
            with self.state.lock:
                if not self.stopping():
                    self.state.room.wait(max(wait, self.net.tuning.poll_seconds))

    def answered(self) -> None:
        self.net.breakers.succeeded(self.origin)

    def not_asked(self) -> None:
        """Admitted, and stopped before there was an outcome."""
        self.net.breakers.abandoned(self.origin)

    def failed(self, fault: WireError, round_began: int) -> None:
        """Waits as long as it has to be waited; Quit when the source is given up."""
        tuning = self.net.tuning
        with self.state.lock:
            if self.stopping():
                self.not_asked()
                raise Quit
            counts, alive = self._count(round_began)
            failures = max(1, self._failures)
        self._judge_host(fault, counts=counts, alive=alive)
        wait = delay(failures, fault, tuning)
        if not fault.retryable or failures > tuning.tries_without_progress or wait is None:
            self.give_up(GaveUp(fault))
            raise Quit
        if counts:
            self.attempted()
            self.tell("retry", fault.message, attempt=failures, delay_s=wait)
        self._wait(wait, everybody=fault.retry_after_ms is not None)

    def _count(self, round_began: int) -> tuple[bool, bool]:
        """Whether this failure counts, and whether any bytes came since the last that did."""
        have = self.state.segments.have.total
        counts, alive = round_began == self.round, have > self.have
        if counts:
            self.round += 1
            self.have = have
            if have - self._have_at_failure >= self.net.tuning.progress_bytes:
                self._failures = 0
                self._have_at_failure = have
            self._failures += 1
        return counts, alive

    def _judge_host(self, fault: WireError, *, counts: bool, alive: bool) -> None:
        """A host that answers, or has just given bytes to any connection, is not one to be left alone."""
        if not fault.retryable:
            self.answered()
        elif alive or not counts:
            self.not_asked()
        elif self.net.breakers.failed(self.origin):
            self.tell("breaker_opened", f"{self.origin} failed too often: {fault.message}")

    def _wait(self, seconds: float, *, everybody: bool) -> None:
        until = self.net.clock() + seconds
        with self.state.lock:
            if everybody:
                self._not_before = max(self._not_before, until)
            while not self.stopping() and (left := until - self.net.clock()) > 0:
                self.state.room.wait(left)
            if self.stopping():
                raise Quit
