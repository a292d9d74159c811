"""The async client: one connection for any number of tasks, one background task that reads it."""

from __future__ import annotations

import math
import socket as sockets
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self, TypeVar

import anyio
import anyio.lowlevel
from anyio import from_thread, to_thread
from anyio.abc import UNIXSocketStream

from modelclient import connecting, dialing
from modelclient.async_care import AsyncCare
from modelclient.async_exchange import AsyncExchange, AsyncWork
from modelclient.inbox import Inbox
from modelclient.locate import Endpoint
from modelclient.reading import EVENT_ITEMS, WORK_ITEMS, Reading
from modelclient.switchboard import LAST_WORDS_SECONDS, REPLY_SECONDS, Switchboard, silent
from modelwire import requests, values
from modelwire.errors import ConnectionLost, LocalError
from modelwire.replies import Event, Hello, Lagged, Progress, Received
from modelwire.requests import Request
from modelwire.vocabulary import PRIORITY_DEFAULT, JobState, OnDisconnect

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T", bound=values.Value)
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


class AsyncClient(AsyncCare):
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
        self._sending = anyio.Lock()
        self._mailboxes: dict[str, Mailbox] = {}
        self._opened: tuple[Switchboard, UNIXSocketStream, Hello] | None = None

    @property
    def endpoint(self) -> str:
        return self._board.endpoint

    @property
    def hello(self) -> Hello:
        return self._connection[2]

    # -- operations

    async def status(self) -> values.Status:
        return await self.call(requests.DaemonStatus(), values.Status)

    async def describe(self) -> values.Description:
        return await self.call(requests.DaemonDescribe(), values.Description)

    async def drain(self, deadline_s: float | None = None) -> values.Drained:
        return await self.call(requests.DaemonDrain(deadline_s=deadline_s), values.Drained)

    def add(
        self,
        path: str,
        *,
        name: str | None = None,
        sha256: str | None = None,
        replace: bool = False,
        license: str | None = None,  # noqa: A002 - the wire's word
        move: bool = False,
        link: bool = False,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> AsyncWork[values.Added]:
        """A local file, directory or set of shards into the store. Without a name the daemon makes one of the file's.

        `path` must be absolute. `move` takes the source away in the end, `link` shares its bytes with the store.
        """
        request = requests.ModelAdd(
            path=path,
            name=name,
            sha256=sha256,
            replace=replace,
            license=license,
            move=move,
            link=link,
            priority=priority,
            on_disconnect=on_disconnect,
            token=token,
        )
        return self.work(request, values.Added)

    def pull(
        self,
        ref: str,
        *,
        name: str | None = None,
        sha256: str | None = None,
        replace: bool = False,
        license: str | None = None,  # noqa: A002 - the wire's word
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        offline: bool = False,
        max_rate: int | None = None,
        directory: str | None = None,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> AsyncWork[values.Pulled]:
        """What a reference means into the store: `hf:org/repo/file`, `ollama:name`, `oci://…`, `https://…`, a path.

        A relative path starts at `directory`. When the work is cancelled, what has arrived is kept for the next time.
        """
        request = requests.ModelPull(
            ref=ref,
            name=name,
            sha256=sha256,
            replace=replace,
            license=license,
            include=include,
            exclude=exclude,
            offline=offline,
            max_rate=max_rate,
            directory=directory,
            priority=priority,
            on_disconnect=on_disconnect,
            token=token,
        )
        return self.work(request, values.Pulled)

    async def show(self, name: str) -> values.ModelView:
        return await self.call(requests.ModelShow(name=name), values.ModelView)

    async def resolve(self, name: str, file: str | None = None) -> values.Resolved:
        """The path of a model's verified bytes, or of one of its files; look at `state` before trusting it."""
        return await self.call(requests.ModelResolve(name=name, file=file), values.Resolved)

    async def jobs(self, *, state: JobState | None = None, limit: int = 100) -> tuple[values.JobView, ...]:
        return (await self.call(requests.JobList(state=state, limit=limit), values.JobList)).jobs

    async def job(self, job: str) -> values.JobView:
        return await self.call(requests.JobShow(job=job), values.JobView)

    def attach(self, job: str) -> AsyncWork[values.JobView]:
        """Progress and outcome of a job that somebody has submitted."""
        return self.work(requests.JobAttach(job=job), values.JobView)

    async def cancel_job(self, job: str) -> values.JobView:
        return await self.call(requests.JobCancel(job=job), values.JobView)

    async def pause(self, job: str) -> values.JobView:
        return await self.call(requests.JobPause(job=job), values.JobView)

    async def resume(self, job: str) -> values.JobView:
        return await self.call(requests.JobResume(job=job), values.JobView)

    async def prioritize(self, job: str, priority: int) -> values.JobView:
        return await self.call(requests.JobPrioritize(job=job, priority=priority), values.JobView)

    def subscribe(
        self,
        *,
        since: int | None = None,
        last: int | None = None,
        follow: bool = True,
        progress: bool = False,
        events: tuple[str, ...] = (),
        model: str | None = None,
        job: str | None = None,
    ) -> AsyncExchange[Event | Progress | Lagged, values.EventsEnd]:
        """Events of the log after `since` (or the newest `last`), then live ones while `follow`."""
        request = requests.EventsSubscribe(
            since=since, last=last, follow=follow, progress=progress, events=events, model=model, job=job
        )
        return AsyncExchange(self, request, EVENT_ITEMS, values.EventsEnd)

    # -- the connection

    def work(self, request: Request, value: type[T]) -> AsyncWork[T]:
        """One request that becomes a job: what happens on the way, and its value."""
        return AsyncWork(self, request, WORK_ITEMS, value)

    async def call(self, request: Request, value: type[T]) -> T:
        """One request, one answer."""
        reading: Reading[Received, T] = Reading(request, (), value)
        mailbox = await self._send(request)
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
            endpoint, raw = await self._connect()
            board = Switchboard(endpoint)
            try:
                stream = await UNIXSocketStream.from_socket(raw)
            except BaseException:  # a cancel too must not leak the socket
                raw.close()
                raise
            await stack.enter_async_context(stream)
            hello = await self._greeting(board, stream)
            self._opened = board, stream, hello
            self._read_all = anyio.Event()
            tasks = await stack.enter_async_context(anyio.create_task_group())
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
            async with self._sending:
                # Half a frame would spoil the connection for all its users: a sender that is cancelled finishes first.
                with anyio.fail_after(math.inf if self.timeout is None else self.timeout, shield=True):
                    await stream.send(frame)
        except (TimeoutError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._hear_last_words()
            raise self._end(board.lost()) from None
        except BaseException:  # a request whose sending was cancelled is not waited for
            self._forget(inbox.id)
            raise
        return mailbox

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
