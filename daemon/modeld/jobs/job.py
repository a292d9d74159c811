"""One live job: its kind of work, its request, its stage, how many follow it, and a signal for each change.

Only the board and the runner change a job; all other code reads it and waits for `changed`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
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

_STOP_REASONS: Final[dict[Stage, StopReason]] = {
    "pausing": "pause",
    "yielding": "yield",
    "cancelling": "cancel",
    "parking": "park",
}


class Kind(ABC, Generic[W, V]):
    """One kind of work: the type of its requests, the type of its outcomes, and how it is done."""

    request: type[W]
    value: type[V]

    frees_space = False
    """Whether a job of this kind is admitted on a full disk too: the store gives up its reserve to record it."""

    always_resumable = False
    """Whether the next start goes on wherever a stop interrupts a job of this kind."""

    @property
    def name(self) -> str:
        """As it is written on the wire, in the ledger and in the log."""
        return str(self.request.__struct_config__.tag)

    @abstractmethod
    async def work(self, job: Job[W, V], /) -> V:
        """Raises `Stopped` when `job.progress.stopped()` turns true."""

    def took_place(self, _request: W, intent: V, /) -> bool:
        """Whether the publication that a job announced before a crash took place. If not, the job runs again."""
        return self.made(intent)

    def changes(self, _request: W, /) -> str | None:
        """The name whose present content the work removes, replaces or passes on; None when there is no such name."""
        return None

    async def standing(self, _name: str, /) -> str:
        """What a name stands for now, as a text to compare; empty when it stands for nothing."""
        return ""

    def made(self, _outcome: V, /) -> bool:
        """Whether the name of this outcome stands for its content now."""
        return False

    def is_background(self, _request: W, /) -> bool:
        """Whether the work takes place beside all other: nothing waits for it, and the daemon may end before it."""
        return False

    def goes_on(self, _job: Job[W, V], /) -> bool:
        """Whether the next start can take up the job when a stop of the daemon interrupts it."""
        return True

    async def restored(self, _job: Job[W, V], /) -> None:
        """Called when a start takes up the job, before any client is served."""

    async def cancelled(self, _job: Job[W, V], _fault: WireError, /) -> None:
        """Called before the end of a job is recorded that was cancelled while it waited, was paused or had stopped."""

    def kept(self, request: W, /) -> W:
        """What stays in the ledger of a request when its job has ended: a signature can have most of a megabyte, and
        the ledger has thousands of jobs."""
        return request

    def queue(self, _request: W, /) -> str:
        """The name of the queue that a job waits in, by default that of its kind; called each time it joins one."""
        return self.name


class Signal:
    """Wakes all current waiters. The signal carries no value: a waiter reads the state again."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None
        """Made by the first waiter: an event is most of a kilobyte, and few of the jobs in memory are waited for."""

    def fire(self) -> None:
        event, self._event = self._event, None
        if event is not None:
            event.set()

    @property
    def coming(self) -> anyio.Event:
        """Set when the signal is next given."""
        if self._event is None:
            self._event = anyio.Event()
        return self._event

    async def wait(self) -> None:
        await self.coming.wait()


async def first_of(*signals: Signal) -> None:
    """Waits until one of them is given. None is missed that is given after the call."""
    coming = [signal.coming for signal in signals]
    async with anyio.create_task_group() as tasks:

        async def wait(event: anyio.Event) -> None:
            await event.wait()
            tasks.cancel_scope.cancel()

        for event in coming:
            tasks.start_soon(wait, event)


class Moment(Signal):
    """A signal that is given once, and never missed."""

    __slots__ = ("_passed", "_then")

    def __init__(self) -> None:
        super().__init__()
        self._passed = False
        self._then: Callable[[], None] | None = None

    def is_set(self) -> bool:
        return self._passed

    def set(self) -> None:
        self._passed = True
        self.fire()
        if (call := self._then) is not None:
            self._then = None
            call()

    def then(self, call: Callable[[], None]) -> None:
        """Has one function called when the moment comes; at once when it has passed."""
        if self._passed:
            call()
        else:
            self._then = call

    async def wait(self) -> None:
        if not self._passed:
            await super().wait()


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
    accepted_for: str | None = None
    """What the name that the work changes stood for when the job was accepted."""
    secret: Any = field(default=None, repr=False)
    """What the work needs and the ledger may not have: gone with the end of the job, and with a restart."""
    order: int = 0
    stage: Stage = "queued"
    """Changed by `move` alone."""
    state: JobState = "queued"
    """The stage as clients see it."""
    position: int | None = None
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    began: float | None = None
    """When its work was last started in this run of the daemon, on the event loop's clock: for how long it worked."""
    value: V | None = None
    failure: WireError | None = None
    intent: V | None = None
    """The outcome that the job announced before it began to publish."""
    cancel_reason: str = "on request"
    watchers: int = 0
    holders: int = 0
    """The watchers whose leaving may end the job: those of the user that owns it."""
    progress: JobProgress = field(default_factory=JobProgress)
    changed: Signal = field(default_factory=Signal)
    ended: Moment = field(default_factory=Moment)
    recorded: Moment = field(default_factory=Moment)
    end_recorded: bool = False
    resumable: bool = False
    """Set by its work, while the next start goes on where a stop interrupts it: the stop does not wait for it."""
    _settings_changed: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.resumable = self.kind.always_resumable

    def move(self, event: Event) -> Stage | None:
        """The stage that the event leads to; None when it is ignored. See `states`."""
        stage = after(self.stage, event)
        if stage is not None:
            self.stage = stage
            self.state = STATES.get(stage, self.state)
            if stage in _STOP_REASONS:
                self.progress.stop_reason = _STOP_REASONS[stage]
                self.changed.fire()  # work that waits looks whether it is to stop
            elif stage == "queued":
                self.progress.stop_reason = None
            if stage in STATES:
                self.position = 0 if stage == "running" else None
        return stage

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL_STATES

    def fail(self, fault: WireError) -> None:
        """Keeps the error without its traceback, whose frames lead back to this job: that would be a cycle, and one
        that holds all that the work had in its hands."""
        self.failure = copy(fault)

    def raise_failure(self) -> None:
        """Raises the failure, if there is one, for one caller: each gets a traceback of its own."""
        if self.failure is not None:
            raise copy(self.failure)

    def drop_request(self) -> None:
        """At its end: all but what is kept of it."""
        self.request, self.secret = self.kind.kept(self.request), None

    def outcome(self) -> V:
        """The value of a job that has ended; raises its failure."""
        self.raise_failure()
        if self.value is None:
            raise Unsupported(
                f"the outcome of job {self.id} was written by another version and cannot be read",
                hint="Ask for the work again, with a new token if it has one.",
            )
        return self.value

    def set_priority(self, priority: int) -> None:
        self.priority = priority
        self._apply_settings()

    def set_request(self, request: W) -> None:
        """Gives the same work other settings."""
        self.request = request
        self._apply_settings()

    def _apply_settings(self) -> None:
        if self._settings_changed is not None:
            self._settings_changed()

    @contextmanager
    def follows_settings(self, apply: Callable[[], None]) -> Iterator[None]:
        """For work whose priority and settings can change while it runs: calls `apply` after each change, on the
        event loop."""
        self._settings_changed = apply
        try:
            yield
        finally:
            self._settings_changed = None


AnyJob = Job[Any, Any]


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
