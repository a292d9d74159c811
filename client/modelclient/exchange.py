"""One request of the blocking client and its replies, as an iterator and a result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from types import TracebackType
from typing import Generic, Self

from modelclient.calls import Call, T
from modelclient.connection import Connection
from modelclient.exchange_state import ExchangeState, Item, keeping
from modelclient.local_files import HandOver
from modelwire.errors import InvalidRequest, ModeldError
from modelwire.replies import Accepted, Progress
from modelwire.requests import Cancel


class Exchange(Generic[Item, T]):
    """Iterate for what happens on the way; `result()` for the outcome. The request is on its way already.

    Leaving early, by `close()` or the end of `with`, cancels the request; after `detach()` the daemon goes on with it.
    """

    def __init__(self, connection: Connection, call: Call[T], items: tuple[type[Item], ...]) -> None:
        self._connection = connection
        self._state = ExchangeState(call, items)
        self._state.inbox = self._inbox = connection._send(call.request, call.descriptors)

    @property
    def job(self) -> str | None:
        """The job's id, as soon as a reply has named it."""
        return self._state.job

    @property
    def joined(self) -> bool:
        """Whether the job was there before this request, as far as a reply has told."""
        return self._state.joined

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
        self._state.cancelled = True
        if not self._state.over:
            self._connection._forget(self._connection._send(Cancel(target=self._inbox.id)).id)

    def detach(self) -> None:
        """Leaves without cancelling: this side hears no more of it."""
        self._state.left = True
        self._connection._forget(self._inbox.id)

    def close(self) -> None:
        if self._state.over:
            return
        with suppress(ModeldError):  # without a connection the daemon has noticed by itself
            self.cancel()
        Exchange.detach(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, deadline: float | None) -> Item | None:
        while (item := self._state.poll()) is None:
            if handed := self._state.refused_path(self._connection.hello):
                self._hand_over(handed)
            elif not self._state.over:
                self._connection._receive(deadline)
            else:
                break
        if item is None and (handed := self._state.succeeded()) and (fault := handed.finish()):
            self._state.fail(fault)
        return item

    def _hand_over(self, handed: HandOver) -> None:
        connection, state = self._connection, self._state
        try:
            with closing(handed.offers()) as offers:
                for offer in offers:
                    Exchange(connection, offer, ()).result(connection.timeout)
            state.inbox = self._inbox = connection._send(handed.request)
        except ModeldError as error:
            state.fail(error)
        if state.cancelled:
            self.cancel()


class Work(Exchange[Accepted | Progress, T]):
    """A write, or an attachment to one: `Accepted` first and again with each new position, then progress, then the
    typed value."""

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

    def detach(self) -> None:
        """Leaves the job to the daemon, which goes on with it also when this client ends: waits until it has taken the
        work and knows that. Raises what keeps it from that."""
        connection, state = self._connection, self._state
        deadline = connection._deadline()
        try:
            while state.ends_when_left and state.job is None:
                self._next(deadline)
        except TimeoutError:
            raise state.timed_out(connection.timeout) from None
        if state.ends_when_left and state.job is not None:
            with suppress(InvalidRequest):  # it has ended meanwhile
                Exchange(connection, keeping(state.job), ()).result(connection.timeout)
        super().detach()
