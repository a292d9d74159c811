"""How long one source is tried for one file: rounds of failures, waits, and what a failure means for its host.

Failures of one round count once: when a server dies, all its connections break.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from modeld.download.partials.shared_state import SharedState
from modeld.download.routes.backoff import delay
from modeld.download.routes.events import EventKind
from modeld.download.routes.outcomes import GaveUp, Network, Quit
from modelwire.errors import SourceUnavailable, WireError


class Tell(Protocol):
    def __call__(self, kind: EventKind, reason: str, *, attempt: int = 1, delay_s: float = 0.0) -> None: ...


@dataclass(slots=True, kw_only=True, eq=False)
class RetryPolicy:
    """Connections call it, several at once; it blocks them while the source must not be asked."""

    network: Network
    state: SharedState
    origin: str | None
    tell: Tell
    attempted: Callable[[], None]
    give_up: Callable[[GaveUp], None]
    has_alternative: Callable[[], bool]
    stopping: Callable[[], bool]
    round: int = 0
    have: int = 0
    """Bytes that were here at the end of the last round."""

    _have_at_failure: int = 0
    _failures: int = 0
    _not_before: float = 0.0

    def __post_init__(self) -> None:
        self.have = self._have_at_failure = self.state.segments.have.total

    def admit(self) -> None:
        """Blocks until the source may be asked, or raises Quit. After it returns the caller must report the outcome, by
        `answered`, `not_asked` or `failed`."""
        reported = False
        while True:
            with self.state.lock:
                if self.stopping():
                    raise Quit
                wait = self._not_before - self.network.clock()
                if wait > 0:
                    self.state.may_fetch.wait(wait)
                    continue
            if self.network.breakers.allow(self.origin):
                return
            wait = self.network.breakers.wait(self.origin)
            reason = f"{self.origin} failed too often and is left alone for {wait:.0f} s more"
            if self.has_alternative():
                self.give_up(GaveUp(SourceUnavailable(reason, retry_after_ms=round(wait * 1000))))
                raise Quit
            if not reported:
                reported = True
                self.tell("transfer.waiting", reason, delay_s=wait)
            with self.state.lock:
                if not self.stopping():
                    self.state.may_fetch.wait(max(wait, self.network.tuning.poll_seconds))

    def answered(self) -> None:
        self.network.breakers.succeeded(self.origin)

    def not_asked(self) -> None:
        """Admitted, but there is no outcome that concerns the host."""
        self.network.breakers.abandoned(self.origin)

    def failed(self, fault: WireError, round_began: int) -> None:
        """Waits until the next try; raises Quit when the source is given up."""
        tuning = self.network.tuning
        with self.state.lock:
            if self.stopping():
                self.not_asked()
                raise Quit
            counts, has_grown = self._count(round_began)
            failures = max(1, self._failures)
        wait = delay(failures, fault, tuning)
        tries = tuning.tries_with_alternative if self.has_alternative() else tuning.tries_without_progress
        ends = not fault.retryable or failures > tries or wait is None
        self._judge_host(fault, counts=counts, has_grown=has_grown, ends=ends)
        if ends or wait is None:
            self.give_up(GaveUp(fault))
            raise Quit
        if counts:
            self.attempted()
            self.tell("transfer.retry", fault.message, attempt=failures, delay_s=wait)
        self.wait(wait, all_connections=fault.retry_after_ms is not None)

    def _count(self, round_began: int) -> tuple[bool, bool]:
        """Whether this failure counts, and whether any bytes came since the last one that counted."""
        have = self.state.segments.have.total
        counts, has_grown = round_began == self.round, have > self.have
        if counts:
            self.round += 1
            self.have = have
            if have - self._have_at_failure >= self.network.tuning.progress_bytes:
                self._failures = 0
                self._have_at_failure = have
            self._failures += 1
        return counts, has_grown

    def _judge_host(self, fault: WireError, *, counts: bool, has_grown: bool, ends: bool) -> None:
        """A host that has just sent bytes over any connection works: the breaker does not count it."""
        if fault.retryable and (has_grown or not counts):
            self.not_asked()
        elif self.network.breakers.judge(self.origin, fault, last=ends):
            self.tell("source.breaker_opened", f"{self.origin} failed too often: {fault.message}")

    def wait(self, seconds: float, *, all_connections: bool = False) -> None:
        """Raises Quit when the source is given up meanwhile."""
        until = self.network.clock() + seconds
        with self.state.lock:
            if all_connections:
                self._not_before = max(self._not_before, until)
            while not self.stopping() and (left := until - self.network.clock()) > 0:
                self.state.may_fetch.wait(left)
            if self.stopping():
                raise Quit
