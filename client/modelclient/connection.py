"""The blocking client's connection: used by one thread at a time, any number of requests in flight."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from modelclient import locate, platform
from modelclient.connect_or_start import GREETINGS, START_SECONDS, connect_or_start
from modelclient.dialing import READ_BYTES, wrong_store
from modelclient.inbox import Inbox
from modelclient.multiplexer import LAST_WORDS_SECONDS, Multiplexer, silent
from modelwire.errors import ConnectionLost
from modelwire.limits import REPLY_SECONDS
from modelwire.replies import Hello
from modelwire.requests import Request

_DAY = 86_400.0
SLICE_SECONDS = 1.0
"""The longest single wait for bytes. A signal that arrives just before a wait begins is noticed only after it: with
waits without end, a Ctrl-C could be lost. And the socket always has a timeout: a request that a signal handler sends
would otherwise make it non-blocking under the read that it interrupts, which then spins."""


class Connection:
    """Connects when it is made. A context manager: its end closes the connection."""

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
        for left in reversed(range(GREETINGS)):
            endpoint, self._channel = connect_or_start(socket, start=start, start_seconds=start_timeout)
            self._wire = Multiplexer(endpoint.path)
            try:
                self.hello = self._greeting()
                break
            except BaseException as fault:  # Ctrl-C too must not leak the connection
                self._channel.close()
                if not (left and isinstance(fault, ConnectionLost)):
                    raise

    @property
    def endpoint(self) -> str:
        return self._wire.endpoint

    def wait_closed(self, seconds: float) -> bool:
        """Whether the daemon closes this connection within that time, as one that stops does when it has ended."""
        deadline = time.monotonic() + seconds
        try:
            while self._wire.fault is None:
                self._receive(deadline)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._wire.end(ConnectionLost("this client is closed", hint="Make a new Client."))
        self._channel.close()

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
            while (hello := self._wire.greeting()) is None:
                self._receive(deadline)
        except TimeoutError:
            raise silent(self.endpoint) from None
        if not self._any_store and (root := locate.other_store(hello.store)) is not None:
            raise wrong_store(self.endpoint, hello.store, root)
        return hello

    def _send(self, request: Request, descriptors: tuple[int, ...] = ()) -> Inbox:
        inbox, frame = self._wire.open(request)
        try:
            self._channel.settimeout(self.timeout or _DAY)
            if descriptors:
                frame = platform.system.send_files(self._channel, frame, descriptors)
            self._channel.sendall(frame)
        except OSError:
            self._hear_last_words()
            raise self._wire.end(self._wire.lost()) from None
        return inbox

    def _forget(self, request_id: str) -> None:
        self._wire.forget(request_id)

    def _receive(self, deadline: float | None) -> None:
        """Waits for bytes and puts each reply into the inbox of its request. Raises TimeoutError."""
        left = SLICE_SECONDS if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            self._channel.settimeout(min(left, SLICE_SECONDS))
            data = self._channel.recv(READ_BYTES)
        except TimeoutError:
            return  # the caller checks its deadline again
        except OSError:
            data = b""  # reset: the daemon is as gone as after a clean end
        self._wire.feed(data)

    def _hear_last_words(self) -> None:
        """A daemon that hangs up may have sent its reason: reads what has arrived before the loss is reported."""
        self.wait_closed(LAST_WORDS_SECONDS)
