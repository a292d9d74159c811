"""The interfaces that each operating system implements as modules: see `modelclient.platform`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class Channel(Protocol):
    """A connected stream of bytes to the daemon, as the blocking client uses it. A socket is one."""

    def settimeout(self, seconds: float | None, /) -> None: ...

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Stream(Protocol):
    """The same for anyio. Faults of the connection are OSErrors."""

    def push(self, data: bytes, descriptors: Sequence[int] = ()) -> bytes:
        """Sends what can be sent without waiting, and returns the rest. The open files go with the first byte."""
        ...

    async def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None: ...

    async def receive(self, size: int) -> bytes:
        """At most `size` bytes; none when the connection has ended, however it did."""
        ...

    async def aclose(self) -> None: ...


class Spawned(Protocol):
    """A daemon process that was started, detached from this one."""

    @property
    def pid(self) -> int: ...

    @property
    def log_path(self) -> str | None:
        """The file that takes the daemon's standard error, None when none could be opened."""
        ...

    def first_line(self, deadline: float, check_cancelled: Callable[[], None]) -> bytes | None:
        """The line by which the daemon reports that it is ready or has failed, or what there is of it when the daemon
        ends. None at the deadline, a time of `time.monotonic`. Call it once; `check_cancelled` may raise."""
        ...

    def last_words(self) -> str:
        """The last line of its log, when the daemon wrote any."""
        ...


class System(Protocol):
    """What the fast path needs as well: nothing here imports more than the interpreter has loaded."""

    @property
    def Stranger(self) -> type[ConnectionError]:  # noqa: N802 - a class
        """Raised by `connect`."""
        ...

    def connect(self, path: str, *, wait: bool = True, named: bool = True, system: bool = False) -> Channel:
        """Connects to an endpoint. Raises an OSError; `Stranger` when another user's program answers at an endpoint
        that was not named. `named` and `system` are those of `Endpoint`.

        FileNotFoundError, NotADirectoryError and ConnectionRefusedError mean that no daemon listens. With `wait` a busy
        daemon is waited for, within a bound; without it that is a BlockingIOError.
        """
        ...

    def send_files(self, channel: Channel, data: bytes, descriptors: Sequence[int]) -> bytes:
        """Sends open files with the first byte of the data, and returns the rest of the data. Only for a daemon that
        says that it takes them."""
        ...

    def endpoint_fault(self, path: str, *, named: bool, system: bool) -> str | None:
        """Why the endpoint must not be used, or None. `named` and `system` are those of `Endpoint`."""
        ...

    def squatted(self, path: str) -> bool:
        """Whether the endpoint's directory is another user's, so that nothing there can be meant."""
        ...

    def has_ended(self, pid: int) -> bool:
        """Whether the process has ended, as far as this one can see."""
        ...


class Starting(Protocol):
    def start_lock(self, path: str) -> AbstractContextManager[bool]:
        """Holds the lock file at `path`; its value is False while another process holds it. It only saves work: where
        nothing can be locked the value is True."""
        ...

    def keeper(self, path: str) -> str | None:
        """The other user who alone can start a daemon at the endpoint; None when this user can."""
        ...

    def spawn(self, command: Sequence[str], environ: Mapping[str, str], log_path: str | None) -> Spawned:
        """Starts a daemon that reports to this process; `log_path` takes its standard error. Raises an OSError."""
        ...


class Commands(Protocol):
    def run(self, words: Sequence[str], environ: Mapping[str, str], begun: Callable[[], None]) -> int:
        """Runs a command with the streams of this process, passes signals on to it, and returns its exit code as a
        shell reports it. Calls `begun` once the command runs. Raises an OSError when it cannot be run."""
        ...


class Files(Protocol):
    def sync_file(self, descriptor: int) -> None:
        """On return everything written so far is on stable storage. A failure condemns the file: never call it
        twice."""
        ...

    def sync_directory(self, path: str) -> None:
        """On return the names in this directory are on stable storage, where the filesystem can promise that."""
        ...

    def is_trusted(self, status: os.stat_result) -> bool:
        """Whether this user or the system's administrator owns what has this status."""
        ...


class Streams(Protocol):
    async def open_stream(self, channel: Channel) -> Stream:
        """Takes over a channel of this system's `connect`, and closes it when that fails."""
        ...
