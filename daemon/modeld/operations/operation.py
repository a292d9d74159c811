"""What an operation is: the type of its request, the type of its value, and how it answers.

An operation is a class with one instance in the daemon, in one of three forms: answered at once (`QuickOperation`), by
a task of its own (`SlowOperation`), or by a job (`job_operation.JobOperation`). Its name, its kind and the role that it
needs are in the table of the wire, `modelwire.operations`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from modeld.access.handed import HandedFiles
from modeld.operations.model_ids import with_names
from modeld.operations.services import Services
from modelwire.errors import Unauthorized
from modelwire.replies import Reply
from modelwire.requests import Request
from modelwire.values import Value
from modelwire.vocabulary import Role, allows

R = TypeVar("R", bound=Request)
V = TypeVar("V", bound=Value)


@dataclass(frozen=True, slots=True)
class Caller:
    """The peer's identity and role, as of the time it connected."""

    uid: int
    gid: int
    role: Role

    def require(self, needed: Role, what: str) -> None:
        if not allows(self.role, needed):
            raise Unauthorized(
                f"{what} needs the role {needed!r}; uid {self.uid} has {self.role!r} here",
                hint=f"Ask the daemon's owner for the role {needed!r}, which [access] in its configuration gives.",
            )


class Handed(Protocol):
    """What the client has handed over on the connection of a request, and what its paths mean."""

    def take(self, transfer: str) -> HandedFiles:
        """The files that were offered under this word: the operation owns them, and closes them. InvalidRequest when
        there are none."""
        ...

    async def may_name_paths(self) -> bool:
        """Whether the daemon opens paths for the client: its own user and root, where the same files lie at them.
        OSError when that cannot be found out now."""
        ...


class Connection(Hashable, Protocol):
    """The connection of a request, with which ends what the client has only meanwhile."""

    pid: int
    """Of the process that connected; 0 when the system does not know it."""

    @property
    def closed(self) -> bool: ...


class Call(Protocol):
    """One request that takes time, for its operation: the caller, and how to reply before the terminal reply."""

    @property
    def id(self) -> str: ...

    @property
    def caller(self) -> Caller: ...

    @property
    def handed(self) -> Handed: ...

    @property
    def connection(self) -> Connection: ...

    def send(self, reply: Reply) -> None:
        """Sends a reply that is not the terminal one."""

    def frame(self, reply: Reply) -> bytes:
        """Encodes such a reply, to be sent later together with others."""

    def send_frame(self, frame: bytes) -> None:
        """Sends an encoded reply: for frames that are made once for many calls."""

    def takes_long(self) -> None:
        """Ends a lookup that will not end within milliseconds: from here on it counts as in flight, and the connection
        takes its next request. Raises QueueFull when the caller has too many of them."""

    @property
    def writable(self) -> bool:
        """Whether the peer takes its replies. While it does not, an operation coalesces its own."""

    async def until_writable(self) -> None: ...


class TakesTime(Exception):
    """Raised by a quick operation that cannot answer at once: its `run` does."""


class Operation(ABC, Generic[R, V]):
    request: type[R]
    value: type[V]

    def __init__(self, services: Services) -> None:
        self._services = services


class QuickOperation(Operation[R, V]):
    @abstractmethod
    def answer(self, caller: Caller, request: R, /) -> V:
        """Answers in the server's own turn, within microseconds and without waiting."""


class SlowOperation(Operation[R, V]):
    is_lookup = False
    """Whether it always ends within milliseconds: a list, one job. Such a request does not count as in flight, as a job
    does that may stay for days; a connection gets one after the other."""

    async def serve(self, call: Call, request: R, /) -> V:
        """As `run`, for a request that may mean models by their ids."""
        return await self.run(call, await with_names(self._services, call.caller.uid, request))

    @abstractmethod
    async def run(self, call: Call, request: R, /) -> V:
        """Answers in a task of its own, which the client may cancel."""
