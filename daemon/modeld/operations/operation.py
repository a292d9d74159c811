"""What an operation is: a request, a value, and how the one comes to the other.

An operation is a class with these two types, made once for the daemon, in one of three forms: answered on the spot
(`QuickOperation`), by a task of its own (`SlowOperation`), or by a job (`job_operation.JobOperation`). Its name, its
kind and the role that it needs stand in the table of the wire, `modelwire.operations`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

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
    """The peer as it was identified when it connected."""

    uid: int
    gid: int
    role: Role

    def require(self, needed: Role, what: str) -> None:
        if not allows(self.role, needed):
            raise Unauthorized(
                f"{what} needs the role {needed!r}; uid {self.uid} has {self.role!r} here",
                hint="Ask the daemon's owner for a role; [access] in its configuration gives it.",
            )


class Call(Protocol):
    """One request that takes time, as its operation sees it: who asks, and how to reply before the terminal reply."""

    @property
    def id(self) -> str: ...

    @property
    def caller(self) -> Caller: ...

    def send(self, reply: Reply) -> None:
        """A reply that is not the terminal one."""

    def frame(self, reply: Reply) -> bytes:
        """The same, to be sent later together with others."""

    def send_frame(self, frame: bytes) -> None:
        """The same, already encoded: for frames that are made once for many."""

    @property
    def writable(self) -> bool:
        """Whether the peer takes what it is sent; when not, an operation coalesces."""

    async def until_writable(self) -> None: ...


class TakesTime(Exception):
    """Raised by a quick operation that cannot answer on the spot: its `run` takes over."""


class Operation(ABC, Generic[R, V]):
    request: type[R]
    value: type[V]

    def __init__(self, services: Services) -> None:
        self._services = services


class QuickOperation(Operation[R, V]):
    @abstractmethod
    def answer(self, caller: Caller, request: R, /) -> V:
        """On the spot, in the server's own turn: no waiting, microseconds."""


class SlowOperation(Operation[R, V]):
    is_look = False
    """It ends within milliseconds, whatever goes on: a list, one job. It does not count as in flight, where a
    subscription or a job may stay for days; a connection gets one after the other."""

    @abstractmethod
    async def run(self, call: Call, request: R, /) -> V:
        """In a task of its own, which a client may cancel."""
