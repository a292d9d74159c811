"""The async client: one connection for any number of tasks, one background task that reads it."""

from __future__ import annotations

import socket as sockets
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Self

import anyio
import anyio.lowlevel
from anyio import from_thread, to_thread
from anyio.abc import SocketAttribute, UNIXSocketStream

from modelclient import connecting, dialing
from modelclient.asking import Ask, Asks, Operations, P, Pages, T
from modelclient.async_exchange import AsyncExchange, AsyncWork
from modelclient.inbox import Inbox
from modelclient.locate import Endpoint
from modelclient.reading import EVENT_ITEMS, WORK_ITEMS, Reading
from modelclient.switchboard import LAST_WORDS_SECONDS, REPLY_SECONDS, Switchboard, silent
from modelwire import values
from modelwire.errors import ConnectionLost, LocalError
from modelwire.replies import Event, Hello, Lagged, Progress, Received
from modelwire.requests import Request
from modelwire.vocabulary import JobState

if TYPE_CHECKING:
    from types import TracebackType

READ_BYTES = 256 * 1024


class Mailbox:
    """An inbox that can be awaited. One task at a time takes from it."""

    __slots__ = ("_inbox", "_news")

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._news = anyio.Event()

    @property
    def id(self) -> str:
        return self._inbox.id

    def ring(self) -> None:
        self._news.set()

    async def take(self) -> Received:
        await anyio.lowlevel.checkpoint_if_cancelled()  # also when there is no need to wait
        while (reply := self._inbox.take()) is None:
            self._news = anyio.Event()
            await self._news.wait()
        return reply


Seen = Event | Progress | Lagged
"""By whoever has subscribed."""


def _answer(asks: Asks[P, T]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @wraps(asks)
    async def answered(self: AsyncClient, /, *args: P.args, **named: P.kwargs) -> T:
        return await self.call(asks(self, *args, **named))

    return answered


def _work(asks: Asks[P, T]) -> Callable[Concatenate[AsyncClient, P], AsyncWork[T]]:
    @wraps(asks)
    def begun(self: AsyncClient, /, *args: P.args, **named: P.kwargs) -> AsyncWork[T]:
        return AsyncWork(self, asks(self, *args, **named), WORK_ITEMS)

    return begun


def _events(asks: Asks[P, T]) -> Callable[Concatenate[AsyncClient, P], AsyncExchange[Seen, T]]:
    @wraps(asks)
    def subscribed(self: AsyncClient, /, *args: P.args, **named: P.kwargs) -> AsyncExchange[Seen, T]:
        return AsyncExchange(self, asks(self, *args, **named), EVENT_ITEMS)

    return subscribed


class AsyncClient:
    """Made by `connect()`; usable inside `async with`, which opens the connection and closes it.

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
        self._argument = socket
        self._start = start
        self._start_timeout = start_timeout
        self._exit = AsyncExitStack()
        self._sending = anyio.Semaphore(1, fast_acquire=True)  # no lock: another task may give it back
        self._mailboxes: dict[str, Mailbox] = {}
        self._opened: tuple[Switchboard, UNIXSocketStream, Hello] | None = None

    @property
    def endpoint(self) -> str:
        return self._board.endpoint

    @property
    def hello(self) -> Hello:
        return self._connection[2]

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

    async def list_models(
        self,
        *,
        filter: str | None = None,  # noqa: A002 - the wire's word
        sort: str | None = None,
    ) -> values.ModelList:
        """All models, or those that a filter (`size>1GB,name~^llama`) lets through: the daemon's pages, together."""
        pages = Pages(filter, sort)
        while not pages.complete:
            pages.take(await self.call(pages.next()))
        return pages.whole

    async def jobs(self, *, state: JobState | None = None, limit: int = 100) -> tuple[values.JobView, ...]:
        """The newest first."""
        return (await self.call(Operations().jobs(state=state, limit=limit))).jobs

    # -- the connection

    async def call(self, ask: Ask[T]) -> T:
        """One request, one answer."""
        reading: Reading[Received, T] = Reading(ask, ())
        mailbox = await self._send(ask.request)
        try:
            with anyio.fail_after(self.timeout):
                while not reading.finished:
                    reading.absorb(await mailbox.take())
        except TimeoutError:
            raise reading.timed_out(self.timeout) from None
        finally:
            self._forget(mailbox.id)
        return reading.value()

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise LocalError("this client is already connected", hint="make one with connect() for each connection")
        async with AsyncExitStack() as stack:
            board, stream, hello = await self._greeted()
            await stack.enter_async_context(stream)
            self._opened = board, stream, hello
            self._read_all = anyio.Event()
            self._tasks = tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            tasks.start_soon(self._read, board, stream, name="modelclient reader")
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(ConnectionLost("this client is closed", hint="make a new one with connect()"))
        # Without the error: the task group would hand it on wrapped in a group.
        await self._exit.aclose()

    async def _greeted(self) -> tuple[Switchboard, UNIXSocketStream, Hello]:
        left = connecting.GREETINGS
        while True:
            left -= 1
            endpoint, raw = await self._connect()
            board = Switchboard(endpoint)
            try:
                stream = await UNIXSocketStream.from_socket(raw)
            except BaseException:  # a cancel too must not leak the socket
                raw.close()
                raise
            try:
                return board, stream, await self._greeting(board, stream)
            except BaseException as fault:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()
                if not (left and isinstance(fault, ConnectionLost)):
                    raise

    async def _connect(self) -> tuple[str, sockets.socket]:
        endpoint = dialing.find(self._argument)
        raw = dialing.dial(endpoint, wait=False)
        if raw is not None:
            connected = raw
        else:
            # Waiting, for a full backlog or for a daemon to start, is for a thread.
            def wait() -> tuple[Endpoint, sockets.socket]:
                return connecting.connect(
                    self._argument,
                    start=self._start,
                    start_seconds=self._start_timeout,
                    check_cancelled=from_thread.check_cancelled,
                )

            endpoint, connected = await to_thread.run_sync(wait)
        connected.setblocking(False)
        return endpoint.path, connected

    async def _greeting(self, board: Switchboard, stream: UNIXSocketStream) -> Hello:
        try:
            with anyio.fail_after(self.timeout):
                while (hello := board.greeting()) is None:
                    board.feed(await _receive(stream))
        except TimeoutError:
            raise silent(board.endpoint) from None
        return hello

    async def _read(self, board: Switchboard, stream: UNIXSocketStream) -> None:
        while board.fault is None:
            for request_id in board.feed(await _receive(stream)):
                if mailbox := self._mailboxes.get(request_id):
                    mailbox.ring()
        self._ring_all()
        self._read_all.set()

    async def _send(self, request: Request) -> Mailbox:
        board, stream, _ = self._connection
        inbox, frame = board.open(request)
        mailbox = self._mailboxes[inbox.id] = Mailbox(inbox)
        try:
            async with AsyncExitStack() as turn:
                await turn.enter_async_context(self._sending)
                if rest := _pushed(stream, frame):
                    # Half a frame would spoil the connection for all its users. A task of its own sends what is left,
                    # whatever becomes of this one: asyncio's own `cancel` and `wait_for` respect no shield.
                    sent = anyio.Event()
                    self._tasks.start_soon(self._send_rest, board, stream, rest, turn.pop_all(), sent)
                    with anyio.CancelScope(shield=True):
                        await sent.wait()
                    if board.fault is not None:
                        raise board.fault
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._hear_last_words()
            raise self._end(board.lost()) from None
        except BaseException:  # a request whose sending was cancelled is not waited for
            self._forget(inbox.id)
            raise
        return mailbox

    async def _send_rest(
        self, board: Switchboard, stream: UNIXSocketStream, rest: bytes, turn: AsyncExitStack, sent: anyio.Event
    ) -> None:
        try:
            async with turn:
                with anyio.fail_after(self.timeout):
                    await stream.send(rest)
        except (TimeoutError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._hear_last_words()
            self._end(board.lost())
        finally:
            sent.set()

    async def _send_only(self, request: Request) -> None:
        self._forget((await self._send(request)).id)

    async def _hear_last_words(self) -> None:
        """A daemon that hangs up may have said why: the reader is given the time to find it."""
        with anyio.move_on_after(LAST_WORDS_SECONDS):
            await self._read_all.wait()

    def _forget(self, request_id: str) -> None:
        self._mailboxes.pop(request_id, None)
        if self._opened is not None:
            self._board.forget(request_id)

    def _end(self, fault: ConnectionLost) -> Exception:
        told = self._board.end(fault)
        self._ring_all()
        return told

    def _ring_all(self) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.ring()

    @property
    def _connection(self) -> tuple[Switchboard, UNIXSocketStream, Hello]:
        if self._opened is None:
            raise LocalError("this client is not connected", hint="use it inside `async with modelclient.connect()`")
        return self._opened

    @property
    def _board(self) -> Switchboard:
        return self._connection[0]


def _pushed(stream: UNIXSocketStream, frame: bytes) -> bytes:
    """What the socket did not take at once: nothing, unless the daemon does not read."""
    try:
        return frame[stream.extra(SocketAttribute.raw_socket).send(frame) :]  # noqa: S610 - no database
    except (BlockingIOError, InterruptedError):
        return frame


async def _receive(stream: UNIXSocketStream) -> bytes:
    try:
        return await stream.receive(READ_BYTES)
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        return b""


def connect(
    socket: str | None = None,
    *,
    start: bool = True,
    timeout: float | None = REPLY_SECONDS,
    start_timeout: float = connecting.START_SECONDS,
) -> AsyncClient:
    """The daemon at `socket`, or at the user's endpoint; started when there is none, unless `start` is false.

    async with modelclient.connect() as client:
        added = await client.add("/srv/llama.gguf", name="llama:8b")
    """
    return AsyncClient(socket, start=start, timeout=timeout, start_timeout=start_timeout)
