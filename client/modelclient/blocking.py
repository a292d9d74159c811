"""The blocking client: one connection, used by one thread at a time, any number of requests in flight."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Self

from modelclient import connecting
from modelclient.asking import Ask, Asks, Operations, P, Pages, T
from modelclient.exchange import Exchange, Work
from modelclient.inbox import Inbox
from modelclient.reading import EVENT_ITEMS, WORK_ITEMS, Reading
from modelclient.switchboard import LAST_WORDS_SECONDS, REPLY_SECONDS, Switchboard, silent
from modelwire import values
from modelwire.errors import ConnectionLost
from modelwire.replies import Event, Hello, Lagged, Progress, Received
from modelwire.requests import Request
from modelwire.vocabulary import JobState

if TYPE_CHECKING:
    from types import TracebackType

READ_BYTES = 256 * 1024
_DAY = 86_400.0
SLICE_SECONDS = 1.0
"""The longest single wait for bytes. A signal that arrives just before a wait begins is noticed only after it: with
waits without end, a Ctrl-C could be lost. And the socket always has a timeout: a request that a signal handler sends
would otherwise make it non-blocking under the read that it interrupts, which then spins."""


Seen = Event | Progress | Lagged
"""By whoever has subscribed."""


def _answer(asks: Asks[P, T]) -> Callable[Concatenate[Client, P], T]:
    @wraps(asks)
    def answered(self: Client, /, *args: P.args, **named: P.kwargs) -> T:
        return self.call(asks(self, *args, **named))

    return answered


def _work(asks: Asks[P, T]) -> Callable[Concatenate[Client, P], Work[T]]:
    @wraps(asks)
    def begun(self: Client, /, *args: P.args, **named: P.kwargs) -> Work[T]:
        return Work(self, asks(self, *args, **named), WORK_ITEMS)

    return begun


def _events(asks: Asks[P, T]) -> Callable[Concatenate[Client, P], Exchange[Seen, T]]:
    @wraps(asks)
    def subscribed(self: Client, /, *args: P.args, **named: P.kwargs) -> Exchange[Seen, T]:
        return Exchange(self, asks(self, *args, **named), EVENT_ITEMS)

    return subscribed


class Client:
    """Connects when it is made. A context manager: its end closes the connection.

    `timeout` bounds each plain answer; work (`add`, `attach`) and subscriptions take the time they take.
    """

    def __init__(
        self,
        socket: str | None = None,
        *,
        start: bool = True,
        timeout: float | None = REPLY_SECONDS,
        start_timeout: float = connecting.START_SECONDS,
    ) -> None:
        self.timeout = timeout
        for left in reversed(range(connecting.GREETINGS)):
            endpoint, self._socket = connecting.connect(socket, start=start, start_seconds=start_timeout)
            self._board = Switchboard(endpoint.path)
            try:
                self.hello = self._greeting()
                break
            except BaseException as fault:  # Ctrl-C too must not leak the socket
                self._socket.close()
                if not (left and isinstance(fault, ConnectionLost)):
                    raise

    @property
    def endpoint(self) -> str:
        return self._board.endpoint

    # -- operations: as they stand in `Operations`

    status = _answer(Operations.status)
    describe = _answer(Operations.describe)
    drain = _answer(Operations.drain)
    show = _answer(Operations.show)
    resolve = _answer(Operations.resolve)
    job = _answer(Operations.job)
    cancel_job = _answer(Operations.cancel_job)
    pause = _answer(Operations.pause)
    resume = _answer(Operations.resume)
    prioritize = _answer(Operations.prioritize)
    quarantine = _answer(Operations.quarantine)
    usage = _answer(Operations.usage)
    configure = _answer(Operations.configure)
    configure_job = _answer(Operations.configure_job)

    add = _work(Operations.add)
    pull = _work(Operations.pull)
    attach = _work(Operations.attach)
    copy = _work(Operations.copy)
    move = _work(Operations.move)
    remove = _work(Operations.remove)
    verify = _work(Operations.verify)
    sweep = _work(Operations.sweep)
    subscribe = _events(Operations.subscribe)

    def list_models(
        self,
        *,
        filter: str | None = None,  # noqa: A002 - the wire's word
        sort: str | None = None,
    ) -> values.ModelList:
        """All models, or those that a filter (`size>1GB,name~^llama`) lets through: the daemon's pages, together."""
        pages = Pages(filter, sort)
        while not pages.complete:
            pages.take(self.call(pages.next()))
        return pages.whole

    def jobs(self, *, state: JobState | None = None, limit: int = 100) -> tuple[values.JobView, ...]:
        """The newest first."""
        return self.call(Operations().jobs(state=state, limit=limit)).jobs

    # -- the connection

    def call(self, ask: Ask[T]) -> T:
        """One request, one answer."""
        reading: Reading[Received, T] = Reading(ask, ())
        inbox = self._send(ask.request)
        deadline = self._deadline()
        try:
            while not reading.finished:
                reading.absorb(self._take(inbox, deadline))
        except TimeoutError:
            raise reading.timed_out(self.timeout) from None
        finally:
            self._board.forget(inbox.id)
        return reading.value()

    def wait_closed(self, seconds: float) -> bool:
        """Whether the daemon closes this connection within that time, as one that stops does when it has ended."""
        deadline = time.monotonic() + seconds
        try:
            while self._board.fault is None:
                self._receive(deadline)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._board.end(ConnectionLost("this client is closed", hint="make a new Client"))
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _deadline(self) -> float | None:
        return None if self.timeout is None else time.monotonic() + self.timeout

    def _greeting(self) -> Hello:
        deadline = self._deadline()
        try:
            while (hello := self._board.greeting()) is None:
                self._receive(deadline)
        except TimeoutError:
            raise silent(self.endpoint) from None
        return hello

    def _send(self, request: Request) -> Inbox:
        inbox, frame = self._board.open(request)
        try:
            self._socket.settimeout(self.timeout or _DAY)
            self._socket.sendall(frame)
        except OSError:
            self._hear_last_words()
            raise self._board.end(self._board.lost()) from None
        return inbox

    def _take(self, inbox: Inbox, deadline: float | None) -> Received:
        """The next reply to one request; those to others go to their own inboxes meanwhile. Raises TimeoutError."""
        while (reply := inbox.take()) is None:
            self._receive(deadline)
        return reply

    def _receive(self, deadline: float | None) -> None:
        left = SLICE_SECONDS if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            self._socket.settimeout(min(left, SLICE_SECONDS))
            data = self._socket.recv(READ_BYTES)
        except TimeoutError:
            return  # the caller looks again whether it still has the time
        except OSError:
            data = b""  # reset: the daemon is as gone as after a clean end
        self._board.feed(data)

    def _hear_last_words(self) -> None:
        """A daemon that hangs up may have said why: what has arrived is read before the loss is told."""
        self.wait_closed(LAST_WORDS_SECONDS)
