"""One request on its way: who asks, and how an operation answers before its terminal reply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from modelwire.errors import Unauthorized
from modelwire.operations import OPERATIONS
from modelwire.replies import Reply
from modelwire.requests import Request
from modelwire.values import Value
from modelwire.vocabulary import Role, allows


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
                hint="ask the daemon's owner for a role: it is given in [access] of its configuration",
            )


class Call(Protocol):
    """What a long operation sees of its connection."""

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
    """Raised by a quick handler when it cannot answer on the spot: the long one of the same request takes over."""


Quick = Callable[[Caller, Any], Value]
"""Answers on the spot, in the server's own turn: no waiting, microseconds."""

Long = Callable[[Call, Any], Awaitable[Value]]
"""May wait; runs as a task of its own and counts as in flight, unless it is a look."""


@dataclass(frozen=True, slots=True)
class Handlers:
    quick: dict[type[Request], Quick]
    long: dict[type[Request], Long]
    looks: frozenset[type[Request]] = frozenset()
    """Of the long ones, those that end within milliseconds, whatever goes on: a list, one job. They do not count as in
    flight, where a subscription or a job may stay for days; a connection gets them one after the other."""

    def __or__(self, other: Handlers) -> Handlers:
        return Handlers(self.quick | other.quick, self.long | other.long, self.looks | other.looks)

    def check_complete(self) -> None:
        """Every operation that the wire knows is handled here, or by the connection itself."""
        handled = self.quick.keys() | self.long.keys()
        missing = [row.name for row in OPERATIONS.values() if row.kind != "connection" and row.request not in handled]
        if missing:
            raise RuntimeError(f"operations without a handler: {', '.join(missing)}")
