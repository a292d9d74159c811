"""What both kinds of exchange make of a reply: which ones a caller sees, and how the last one ends it. Pure."""

from __future__ import annotations

from typing import Generic, TypeVar

from modelclient.asking import Ask, T
from modelclient.switchboard import outcome
from modelwire.errors import ConnectionLost, LocalError, ModeldError, TimedOut
from modelwire.replies import Accepted, Error, Event, Lagged, Progress, RawResult, Received, Reply

Item = TypeVar("Item", bound=Reply)

WORK_ITEMS = (Accepted, Progress)
EVENT_ITEMS = (Event, Progress, Lagged)


class Reading(Generic[Item, T]):
    """One request and what has come back: items until the terminal reply, then a value or an error for good."""

    def __init__(self, ask: Ask[T], items: tuple[type[Item], ...]) -> None:
        self.request = ask.request
        self.job: str | None = None
        self._items = items
        self._value_type = ask.value
        self._value: T | None = None
        self._error: ModeldError | None = None

    @property
    def finished(self) -> bool:
        return self._value is not None or self._error is not None

    @property
    def operation(self) -> str:
        return str(self.request.__struct_config__.tag)

    def absorb(self, reply: Received) -> Item | None:
        """An item for the caller, or None: this reply ended the exchange or is of no interest to it."""
        if isinstance(reply, RawResult | Error):
            try:
                self._value = outcome(reply, self._value_type)
            except ModeldError as error:
                self._error = error
            return None
        if isinstance(reply, Accepted | Progress):
            self.job = reply.job
        return reply if isinstance(reply, self._items) else None

    def fail(self, error: ModeldError) -> None:
        """The connection's fault ends this exchange. A job that is known can be found again."""
        if self.finished:
            return
        if isinstance(error, ConnectionLost) and self.job is not None:
            error = ConnectionLost(
                error.message, hint=f"start again, or see what became of it: modelctl job {self.job}"
            )
        self._error = error

    def value(self) -> T:
        """The outcome, once finished."""
        if self._error is not None:
            raise self._error
        if self._value is None:
            raise LocalError(f"{self.operation} was left before its terminal reply")
        return self._value

    def timed_out(self, seconds: float | None) -> TimedOut:
        return TimedOut(
            f"no reply to {self.operation} within {seconds:g} s"
            if seconds is not None
            else f"{self.operation} timed out",
            hint="the daemon may be busy or stuck: try again with a longer timeout, see `modelctl status`",
        )
