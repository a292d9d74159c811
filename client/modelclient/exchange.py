"""One request of the blocking client and its replies, as an iterator and a result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self

from modelclient.connection import Connection
from modelclient.exchange_state import Call, ExchangeState, Item, T
from modelwire.errors import ModeldError
from modelwire.replies import Accepted, Progress
from modelwire.requests import Cancel


class Exchange(Generic[Item, T]):
    """Iterate for what happens on the way; `result()` for the outcome. The request is on its way already.

    Leaving early, by `close()` or the end of `with`, cancels the request; `detach()` leaves it alone.
    """

    def __init__(self, connection: Connection, call: Call[T], items: tuple[type[Item], ...]) -> None:
        self._connection = connection
        self._state = ExchangeState(call, items)
        self._state.inbox = self._inbox = connection._send(call.request)

    @property
    def job(self) -> str | None:
        """The job's id, as soon as a reply has named it."""
        return self._state.job

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        item = self._next(None)
        if item is None:
            self._state.value()  # an error never passes in silence
            raise StopIteration
        return item

    def result(self, timeout: float | None = None) -> T:
        """Waits for the terminal reply. `TimedOut` leaves the exchange as it is: it can be waited for again."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while self._next(deadline) is not None:
                pass
        except TimeoutError:
            raise self._state.timed_out(timeout) from None
        return self._state.value()

    def cancel(self) -> None:
        """Asks the daemon to end the request. The terminal reply still comes; this does not wait for it."""
        if not self._state.over:
            self._connection._forget(self._connection._send(Cancel(target=self._inbox.id)).id)

    def detach(self) -> None:
        """Leaves without cancelling: the daemon goes on, this side hears no more of it."""
        self._state.left = True
        self._connection._forget(self._inbox.id)

    def close(self) -> None:
        if self._state.over:
            return
        with suppress(ModeldError):  # without a connection the daemon has noticed by itself
            self.cancel()
        self.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, deadline: float | None) -> Item | None:
        while (item := self._state.poll()) is None and not self._state.over:
            self._connection._receive(deadline)
        return item


class Work(Exchange[Accepted | Progress, T]):
    """A write, or an attachment to one: `accepted`, progress, then the typed value."""

    def accepted(self, timeout: float | None = None) -> Accepted | None:
        """Waits until the daemon has taken the work: the job's id and its position. None when it had ended by then."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while (item := self._next(deadline)) is not None:
                if isinstance(item, Accepted):
                    return item
        except TimeoutError:
            raise self._state.timed_out(timeout) from None
        self._state.value()
        return None
