"""The blocking client: one connection, used by one thread at a time, any number of requests in flight."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self, TypeVar

from modelclient import connecting
from modelclient.care import Care
from modelclient.exchange import Exchange, Work
from modelclient.inbox import Inbox
from modelclient.reading import EVENT_ITEMS, WORK_ITEMS, Reading
from modelclient.switchboard import LAST_WORDS_SECONDS, REPLY_SECONDS, Switchboard, silent
from modelwire import requests, values
from modelwire.errors import ConnectionLost
from modelwire.replies import Event, Hello, Lagged, Progress, Received
from modelwire.requests import Request
from modelwire.vocabulary import PRIORITY_DEFAULT, JobState, OnDisconnect

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T", bound=values.Value)
READ_BYTES = 256 * 1024
_DAY = 86_400.0
SLICE_SECONDS = 1.0
"""The longest single wait for bytes. A signal that arrives just before a wait begins is noticed only after it: with
waits without end, a Ctrl-C could be lost. And the socket always has a timeout: a request that a signal handler sends
would otherwise make it non-blocking under the read that it interrupts, which then spins."""


class Client(Care):
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
        endpoint, self._socket = connecting.connect(socket, start=start, start_seconds=start_timeout)
        self._board = Switchboard(endpoint.path)
        try:
            self.hello = self._greeting()
        except BaseException:  # Ctrl-C too must not leak the socket
            self._socket.close()
            raise

    @property
    def endpoint(self) -> str:
        return self._board.endpoint

    # -- operations

    def status(self) -> values.Status:
        return self.call(requests.DaemonStatus(), values.Status)

    def describe(self) -> values.Description:
        return self.call(requests.DaemonDescribe(), values.Description)

    def drain(self, deadline_s: float | None = None) -> values.Drained:
        return self.call(requests.DaemonDrain(deadline_s=deadline_s), values.Drained)

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
    ) -> Work[values.Added]:
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
    ) -> Work[values.Pulled]:
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

    def show(self, name: str) -> values.ModelView:
        return self.call(requests.ModelShow(name=name), values.ModelView)

    def resolve(self, name: str, file: str | None = None) -> values.Resolved:
        """The path of a model's verified bytes, or of one of its files; look at `state` before trusting it."""
        return self.call(requests.ModelResolve(name=name, file=file), values.Resolved)

    def jobs(self, *, state: JobState | None = None, limit: int = 100) -> tuple[values.JobView, ...]:
        return self.call(requests.JobList(state=state, limit=limit), values.JobList).jobs

    def job(self, job: str) -> values.JobView:
        return self.call(requests.JobShow(job=job), values.JobView)

    def attach(self, job: str) -> Work[values.JobView]:
        """Progress and outcome of a job that somebody has submitted."""
        return self.work(requests.JobAttach(job=job), values.JobView)

    def cancel_job(self, job: str) -> values.JobView:
        return self.call(requests.JobCancel(job=job), values.JobView)

    def pause(self, job: str) -> values.JobView:
        return self.call(requests.JobPause(job=job), values.JobView)

    def resume(self, job: str) -> values.JobView:
        return self.call(requests.JobResume(job=job), values.JobView)

    def prioritize(self, job: str, priority: int) -> values.JobView:
        return self.call(requests.JobPrioritize(job=job, priority=priority), values.JobView)

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
    ) -> Exchange[Event | Progress | Lagged, values.EventsEnd]:
        """Events of the log after `since` (or the newest `last`), then live ones while `follow`."""
        request = requests.EventsSubscribe(
            since=since, last=last, follow=follow, progress=progress, events=events, model=model, job=job
        )
        return Exchange(self, request, EVENT_ITEMS, values.EventsEnd)

    # -- the connection

    def work(self, request: Request, value: type[T]) -> Work[T]:
        """One request that becomes a job: what happens on the way, and its value."""
        return Work(self, request, WORK_ITEMS, value)

    def call(self, request: Request, value: type[T]) -> T:
        """One request, one answer."""
        reading: Reading[Received, T] = Reading(request, (), value)
        inbox = self._send(request)
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
