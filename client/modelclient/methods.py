"""What makes one function a method of both clients.

A method returns the request and the type of its value. Its decorator says what becomes of that: `answer` sends it and
returns the value, `steps` does so several times over, `work` and `events` return an exchange, `held` a context manager.
On `Client` the methods block, on `AsyncClient` they are awaited or return async exchanges; parameters, defaults and
types are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from modelclient.calls import Call, T
from modelwire.errors import ConnectionLost, NotFound
from modelwire.replies import Event, Lagged, Progress
from modelwire.requests import LeaseRelease
from modelwire.values import Leased, Released, Value

if TYPE_CHECKING:
    from modelclient.async_exchange import AsyncExchange, AsyncWork
    from modelclient.exchange import Exchange, Work

P = ParamSpec("P")
V = TypeVar("V", bound=Value)
R = TypeVar("R")
Blocked = TypeVar("Blocked")
Awaited = TypeVar("Awaited")

Seen = Event | Progress | Lagged
"""What a subscription delivers."""


class BlockingCaller(ABC):
    """What `Client` does with a call."""

    @abstractmethod
    def call(self, call: Call[T]) -> T: ...

    @abstractmethod
    def _work(self, call: Call[T]) -> Work[T]: ...

    @abstractmethod
    def _events(self, call: Call[T]) -> Exchange[Seen, T]: ...


class AsyncCaller(ABC):
    """What `AsyncClient` does with a call."""

    @abstractmethod
    async def call(self, call: Call[T]) -> T: ...

    @abstractmethod
    async def _call_at_end(self, call: Call[T]) -> None:
        """One request, also of a task that is cancelled."""

    @abstractmethod
    def _work(self, call: Call[T]) -> AsyncWork[T]: ...

    @abstractmethod
    def _events(self, call: Call[T]) -> AsyncExchange[Seen, T]: ...


class Operation(Generic[P, Blocked, Awaited]):
    """A method that is one function on a `BlockingCaller` and another on an `AsyncCaller`."""

    def __init__(
        self,
        blocking: Callable[Concatenate[BlockingCaller, P], Blocked],
        awaited: Callable[Concatenate[AsyncCaller, P], Awaited],
    ) -> None:
        self._blocking = blocking
        self._awaited = awaited

    @overload
    def __get__(self, client: BlockingCaller, owner: type[Any]) -> Callable[P, Blocked]: ...
    @overload
    def __get__(self, client: AsyncCaller, owner: type[Any]) -> Callable[P, Awaited]: ...
    @overload
    def __get__(
        self, client: None, owner: type[BlockingCaller]
    ) -> Callable[Concatenate[BlockingCaller, P], Blocked]: ...
    @overload
    def __get__(self, client: None, owner: type[AsyncCaller]) -> Callable[Concatenate[AsyncCaller, P], Awaited]: ...
    def __get__(self, client: object, owner: type[Any]) -> Any:
        function: Any = self._awaited if issubclass(owner, AsyncCaller) else self._blocking
        return function.__get__(client, owner)


Method = Callable[Concatenate[Any, P], R]
"""A method of `Operations`, on either client."""


def answer(method: Method[P, Call[T]]) -> Operation[P, T, Coroutine[Any, Any, T]]:
    @steps
    @wraps(method)
    def one_step(client: Any, /, *args: P.args, **named: P.kwargs) -> Generator[Call[T], T, T]:
        return (yield method(client, *args, **named))

    return one_step


def steps(method: Method[P, Generator[Call[V], V, R]]) -> Operation[P, R, Coroutine[Any, Any, R]]:
    """The method yields calls, is sent their values, and returns what the caller gets."""

    @wraps(method)
    def blocking(client: BlockingCaller, /, *args: P.args, **named: P.kwargs) -> R:
        running = method(client, *args, **named)
        try:
            call = next(running)
            while True:
                call = running.send(client.call(call))
        except StopIteration as end:
            value: R = end.value
            return value

    @wraps(method)
    async def awaited(client: AsyncCaller, /, *args: P.args, **named: P.kwargs) -> R:
        running = method(client, *args, **named)
        try:
            call = next(running)
            while True:
                call = running.send(await client.call(call))
        except StopIteration as end:
            value: R = end.value
            return value

    return Operation(blocking, awaited)


def work(method: Method[P, Call[T]]) -> Operation[P, Work[T], AsyncWork[T]]:
    @wraps(method)
    def blocking(client: BlockingCaller, /, *args: P.args, **named: P.kwargs) -> Work[T]:
        return client._work(method(client, *args, **named))

    @wraps(method)
    def awaited(client: AsyncCaller, /, *args: P.args, **named: P.kwargs) -> AsyncWork[T]:
        return client._work(method(client, *args, **named))

    return Operation(blocking, awaited)


def outcome(method: Method[P, Call[T]]) -> Operation[P, T, Coroutine[Any, Any, T]]:
    """As `work`, for a caller who wants nothing but its outcome. It takes as long as it takes."""

    @wraps(method)
    def blocking(client: BlockingCaller, /, *args: P.args, **named: P.kwargs) -> T:
        with client._work(method(client, *args, **named)) as running:
            return running.result()

    @wraps(method)
    async def awaited(client: AsyncCaller, /, *args: P.args, **named: P.kwargs) -> T:
        async with client._work(method(client, *args, **named)) as running:
            return await running.result()

    return Operation(blocking, awaited)


def events(method: Method[P, Call[T]]) -> Operation[P, Exchange[Seen, T], AsyncExchange[Seen, T]]:
    @wraps(method)
    def blocking(client: BlockingCaller, /, *args: P.args, **named: P.kwargs) -> Exchange[Seen, T]:
        return client._events(method(client, *args, **named))

    @wraps(method)
    def awaited(client: AsyncCaller, /, *args: P.args, **named: P.kwargs) -> AsyncExchange[Seen, T]:
        return client._events(method(client, *args, **named))

    return Operation(blocking, awaited)


def held(
    method: Method[P, Call[Leased]],
) -> Operation[P, AbstractContextManager[Leased], AbstractAsyncContextManager[Leased]]:
    """What the call acquires is released at the end of the block."""

    @wraps(method)
    @contextmanager
    def blocking(client: BlockingCaller, /, *args: P.args, **named: P.kwargs) -> Iterator[Leased]:
        lease = client.call(method(client, *args, **named))
        try:
            yield lease
        finally:
            with suppress(ConnectionLost, NotFound):  # it has ended
                client.call(_release(lease))

    @wraps(method)
    @asynccontextmanager
    async def awaited(client: AsyncCaller, /, *args: P.args, **named: P.kwargs) -> AsyncIterator[Leased]:
        lease = await client.call(method(client, *args, **named))
        try:
            yield lease
        finally:
            with suppress(ConnectionLost, NotFound):
                await client._call_at_end(_release(lease))

    return Operation(blocking, awaited)


def _release(lease: Leased) -> Call[Released]:
    return Call(LeaseRelease(lease=lease.lease), Released)
