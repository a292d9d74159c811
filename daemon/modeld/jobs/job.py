"""One live job: its kind of work, its request, its stage, who is attached, and a signal for each change.

Only the board and the runner change a job; everything else reads it and waits for `changed`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

import anyio

from modeld.jobs.states import STATES, Event, Stage, after
from modeld.progress import JobProgress, StopReason
from modelwire.errors import Unsupported, WireError
from modelwire.requests import Write
from modelwire.values import Value
from modelwire.vocabulary import TERMINAL_STATES, JobState, OnDisconnect

W = TypeVar("W", bound=Write)
V = TypeVar("V", bound=Value)

_STOP_REASONS: Final[dict[Stage, StopReason]] = {"pausing": "pause", "cancelling": "cancel", "parking": "park"}


class Kind(ABC, Generic[W, V]):
    """One kind of work: what its jobs are asked with, what they come to, and how they are done."""

    request: type[W]
    value: type[V]

    frees_space = False
    """A job of this kind is admitted on a full disk too: the store's reserve is given up to record it."""

    @property
    def name(self) -> str:
        """As on the wire, in the ledger and in the log."""
        return str(self.request.__struct_config__.tag)

    @abstractmethod
    async def work(self, job: Job[W, V], /) -> V:
        """Raises `Stopped` when `job.meter` says that it is asked to stop."""

    def took_place(self, _request: W, _intent: V, /) -> bool:
        """Whether the change that a job announced before a crash happened. If not, the job runs again."""
        return False

    def queue(self, _request: W, /) -> str:
        """With which others a job lines up, by default with all of its kind; asked each time that it does."""
        return self.name


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


@dataclass(slots=True, eq=False, kw_only=True)
class Job(Generic[W, V]):
    id: str
    kind: Kind[W, V]
    key: str
    request: W
    peer: int
    priority: int
    on_disconnect: OnDisconnect
    created_at: float
    model: str | None = None
    token: str | None = None
    order: int = 0
    stage: Stage = "queued"
    """Changed by `move` alone."""
    state: JobState = "queued"
    """What clients see of the stage."""
    position: int | None = None
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    value: V | None = None
    failure: WireError | None = None
    intent: V | None = None
    """What it announced that it would publish."""
    stop_words: str = "on request"
    watchers: int = 0
    holders: int = 0
    """Those watchers whose leaving may end the job: not who only looks at somebody else's."""
    meter: JobProgress = field(default_factory=JobProgress)
    changed: Signal = field(default_factory=Signal)
    ended: anyio.Event = field(default_factory=anyio.Event)
    recorded: anyio.Event = field(default_factory=anyio.Event)
    end_recorded: bool = False
    _settings_changed: Callable[[], None] | None = None

    def move(self, event: Event) -> Stage | None:
        """The stage that the event leads to; None when it is ignored. See `states`."""
        stage = after(self.stage, event)
        if stage is not None:
            self.stage = stage
            self.state = STATES.get(stage, self.state)
            if stage in _STOP_REASONS:
                self.meter.stop_reason = _STOP_REASONS[stage]
            elif stage == "queued":
                self.meter.stop_reason = None
            if stage in STATES:
                self.position = 0 if stage == "running" else None
        return stage

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL_STATES

    def outcome(self) -> V:
        """Of a job that has ended. Raises its failure."""
        if self.failure is not None:
            raise self.failure
        if self.value is None:
            raise Unsupported(
                f"the outcome of job {self.id} was written by another version and cannot be read",
                hint="Ask for the work again, with a new token if it has one.",
            )
        return self.value

    def set_priority(self, priority: int) -> None:
        self.priority = priority
        self._tell_settings()

    def set_request(self, request: W) -> None:
        """The same work with other settings."""
        self.request = request
        self._tell_settings()

    def _tell_settings(self) -> None:
        if self._settings_changed is not None:
            self._settings_changed()

    @contextmanager
    def follows_settings(self, apply: Callable[[], None]) -> Iterator[None]:
        """For work that heeds its priority and its request's settings while it runs: `apply` is called after each
        change of them, on the event loop."""
        self._settings_changed = apply
        try:
            yield
        finally:
            self._settings_changed = None


AnyJob = Job[Any, Any]


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
