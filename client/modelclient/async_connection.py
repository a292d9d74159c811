"""The async client's connection: shared by any number of tasks, read by one background task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

import anyio
from anyio import from_thread, to_thread

from modelclient import dialing, locate, platform
from modelclient.connect_or_start import GREETINGS, START_SECONDS, connect_or_start
from modelclient.dialing import READ_BYTES
from modelclient.inbox import Inbox
from modelclient.locate import Endpoint
from modelclient.multiplexer import LAST_WORDS_SECONDS, Multiplexer, silent
from modelclient.platform.interface import Channel, Stream
from modelwire.errors import ConnectionLost, LocalError, ModeldError
from modelwire.limits import REPLY_SECONDS
from modelwire.replies import Hello
from modelwire.requests import Request


class Mailbox:
    """An inbox whose news can be awaited, by one task at a time."""

    __slots__ = ("_news", "inbox")

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self._news = anyio.Event()

    def ring(self) -> None:
        self._news.set()

    async def wait(self) -> None:
        """Until the next `ring`. Look into the inbox before: what it holds already does not ring again."""
        self._news = anyio.Event()
        await self._news.wait()


class AsyncConnection:
    """Usable inside `async with`, which opens the connection and closes it."""

    def __init__(
        self,
        socket: str | None = None,
        *,
        start: bool = True,
        timeout: float | None = REPLY_SECONDS,
        start_timeout: float = START_SECONDS,
        any_store: bool = False,
    ) -> None:
        self.timeout = timeout
        self._any_store = any_store
        self._argument = socket
        self._start = start
        self._start_timeout = start_timeout
        self._exit = AsyncExitStack()
        self._sending = anyio.Semaphore(1, fast_acquire=True)  # no lock: another task may give it back
        self._mailboxes: dict[str, Mailbox] = {}
        self._unfinished: set[anyio.Event] = set()
        self._opened: tuple[Multiplexer, Stream, Hello] | None = None

    @property
    def endpoint(self) -> str:
        return self._connection[0].endpoint

    @property
    def hello(self) -> Hello:
        return self._connection[2]

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise LocalError(
                "this client is already connected", hint="Make a client with connect() for each connection."
            )
        async with AsyncExitStack() as stack:
            wire, stream, hello = await self._greeted()
            stack.push_async_callback(stream.aclose)
            self._opened = wire, stream, hello
            self._read_all = anyio.Event()
            self._tasks = tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            # Shielded: a caller that is cancelled still hands over what it has detached, and that has answers to read.
            self._reading = anyio.CancelScope(shield=True)
            stack.callback(self._reading.cancel)
            tasks.start_soon(self._read, wire, stream, name="modelclient reader")
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.move_on_after(self.timeout, shield=True):
            for finished in [*self._unfinished]:
                await finished.wait()
        self._end(ConnectionLost("this client is closed", hint="Make a new one with connect()."))
        # Without the error: the task group would hand it on wrapped in a group.
        await self._exit.aclose()

    async def _greeted(self) -> tuple[Multiplexer, Stream, Hello]:
        left = GREETINGS
        while True:
            left -= 1
            endpoint, channel = await self._connect()
            wire = Multiplexer(endpoint)
            stream = await platform.streams().open_stream(channel)
            try:
                return wire, stream, await self._greeting(wire, stream)
            except BaseException as fault:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()
                if not (left and isinstance(fault, ConnectionLost)):
                    raise

    async def _connect(self) -> tuple[str, Channel]:
        endpoint = dialing.find(self._argument)
        channel = dialing.dial(endpoint, wait=False)
        if channel is not None:
            return endpoint.path, channel

        # Waiting, for a full backlog or for a daemon to start, is for a thread.
        def wait() -> tuple[Endpoint, Channel]:
            return connect_or_start(
                self._argument,
                start=self._start,
                start_seconds=self._start_timeout,
                check_cancelled=from_thread.check_cancelled,
            )

        found, opened = await to_thread.run_sync(wait)
        return found.path, opened

    async def _greeting(self, wire: Multiplexer, stream: Stream) -> Hello:
        try:
            with anyio.fail_after(self.timeout):
                while (hello := wire.greeting()) is None:
                    wire.feed(await stream.receive(READ_BYTES))
        except TimeoutError:
            raise silent(wire.endpoint) from None
        if not self._any_store and (root := locate.other_store(hello.store)) is not None:
            raise await to_thread.run_sync(dialing.wrong_store, wire.endpoint, hello.store, root)
        return hello

    async def _read(self, wire: Multiplexer, stream: Stream) -> None:
        with self._reading:
            while wire.fault is None:
                for request_id in wire.feed(await stream.receive(READ_BYTES)):
                    if mailbox := self._mailboxes.get(request_id):
                        mailbox.ring()
            self._ring_all()
            self._read_all.set()

    async def _send(self, request: Request, descriptors: tuple[int, ...] = ()) -> Mailbox:
        wire, stream, _ = self._connection
        inbox, frame = wire.open(request)
        mailbox = self._mailboxes[inbox.id] = Mailbox(inbox)
        try:
            async with AsyncExitStack() as turn:
                await turn.enter_async_context(self._sending)
                if rest := stream.push(frame, descriptors):
                    # Half a frame would spoil the connection for all its users. A task of its own sends what is left,
                    # whatever becomes of this one: asyncio's own `cancel` and `wait_for` respect no shield.
                    sent = anyio.Event()
                    unsent = descriptors if len(rest) == len(frame) else ()
                    self._tasks.start_soon(self._send_rest, wire, stream, rest, unsent, turn.pop_all(), sent)
                    with anyio.CancelScope(shield=True):
                        await sent.wait()
                    if wire.fault is not None:
                        raise wire.fault
        except OSError:
            await self._hear_last_words()
            raise self._end(wire.lost()) from None
        except BaseException:  # no exchange waits for a request whose sending was cancelled
            self._forget(inbox.id)
            raise
        return mailbox

    async def _send_rest(
        self,
        wire: Multiplexer,
        stream: Stream,
        rest: bytes,
        descriptors: tuple[int, ...],
        turn: AsyncExitStack,
        sent: anyio.Event,
    ) -> None:
        try:
            async with turn:
                with anyio.fail_after(self.timeout):
                    await stream.send(rest, descriptors)
        except OSError:  # a TimeoutError is one
            await self._hear_last_words()
            self._end(wire.lost())
        finally:
            sent.set()

    async def _hear_last_words(self) -> None:
        """A daemon that hangs up may have sent its reason: the reader gets the time to find it."""
        with anyio.move_on_after(LAST_WORDS_SECONDS):
            await self._read_all.wait()

    def _finish(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs it in a task of this client, also when the client is closed or cancelled meanwhile."""
        if self._connection[0].fault is not None:
            return
        finished = anyio.Event()
        self._unfinished.add(finished)

        async def run() -> None:
            with anyio.CancelScope(shield=True):
                try:
                    with suppress(ModeldError):
                        await work()
                finally:
                    self._unfinished.discard(finished)
                    finished.set()

        self._tasks.start_soon(run, name="modelclient detach")

    def _forget(self, request_id: str) -> None:
        self._mailboxes.pop(request_id, None)
        if self._opened is not None:
            self._opened[0].forget(request_id)

    def _end(self, fault: ConnectionLost) -> Exception:
        reported = self._connection[0].end(fault)
        self._ring_all()
        return reported

    def _ring_all(self) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.ring()

    @property
    def _connection(self) -> tuple[Multiplexer, Stream, Hello]:
        if self._opened is None:
            raise LocalError("this client is not connected", hint="Use it inside `async with modelclient.connect()`.")
        return self._opened
