"""One live job: its request, its state, who is attached, and a signal for each change.

Only the board changes a job; everybody else reads it and waits for `changed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import anyio
import msgspec

from modeld.download.engine.budget import Budget, Share
from modeld.progress import JobProgress
from modelwire.errors import WireError, from_code
from modelwire.requests import ModelPull, Write
from modelwire.values import Counters, Failure, JobView, Value
from modelwire.vocabulary import TERMINAL_STATES, JobState, OnDisconnect


class Signal:
    """Wakes everybody who waits now. A waiter looks at the state again: the signal carries nothing."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def fire(self) -> None:
        self._event.set()
        self._event = anyio.Event()

    async def wait(self) -> None:
        await self._event.wait()


@dataclass(slots=True, eq=False)
class Job:
    id: str
    kind: str
    key: str
    request: Write
    peer: int
    priority: int
    on_disconnect: OnDisconnect
    created_at: float
    model: str | None = None
    token: str | None = None
    order: int = 0
    state: JobState = "queued"
    position: int | None = None
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    value: Value | None = None
    failure: WireError | None = None
    intent: Value | None = None
    """What it announced that it would publish, of the type of its outcome."""
    stop_words: str = "on request"
    watchers: int = 0
    holders: int = 0
    """Those watchers whose leaving may end the job: not who only looks at somebody else's."""
    share: Share | None = None
    """Of the bandwidth, while it fetches."""
    meter: JobProgress = field(default_factory=JobProgress)
    changed: Signal = field(default_factory=Signal)
    ended: anyio.Event = field(default_factory=anyio.Event)
    recorded: anyio.Event = field(default_factory=anyio.Event)
    withdrawn: bool = False
    ending: bool = False
    """Its end is being written down."""
    end_recorded: bool = False

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL_STATES

    def over(self) -> bool:
        """Ended, about to end, or left to the next start: nothing may be decided about it any more."""
        return self.ending or self.ended.is_set()

    @property
    def max_rate(self) -> int | None:
        """Bytes a second that it may fetch at most, beside what all may together."""
        return self.request.max_rate if isinstance(self.request, ModelPull) else None

    @contextmanager
    def paced_by(self, budget: Budget) -> Iterator[Share]:
        """For as long as it fetches: a priority or rate that it is given meanwhile counts at once."""
        self.share = budget.share(priority=self.priority, rate=self.max_rate)
        try:
            yield self.share
        finally:
            self.share = None

    def view(self) -> JobView:
        return JobView(
            id=self.id,
            kind=self.kind,
            state=self.state,
            priority=self.priority,
            max_rate=self.max_rate,
            created_at=timestamp(self.created_at),
            position=self.position if self.state in ("queued", "running") else None,
            model=self.model,
            started_at=timestamp(self.started_at) if self.started_at else None,
            ended_at=timestamp(self.ended_at) if self.ended_at else None,
            on_disconnect=self.on_disconnect,
            attempts=self.attempts,
            peer=self.peer,
            watchers=self.watchers,
            progress=self._progress(),
            error=self.failure_value() if self.failure else None,
            value=self.value,
        )

    def _progress(self) -> Counters:
        now = self.meter.snapshot()
        if self.state == "running":
            return now
        # What does not run has no speed: the meter's would fade from one look to the next.
        return msgspec.structs.replace(now, rate_bps=None, eta_s=None)

    def failure_value(self) -> Failure | None:
        fault = self.failure
        if fault is None:
            return None
        return Failure(
            code=fault.code, message=fault.message, hint=fault.hint, retryable=fault.retryable, details=fault.details
        )


def failure_error(value: Failure) -> WireError:
    return from_code(value.code, value.message, hint=value.hint, retryable=value.retryable, details=value.details)


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
