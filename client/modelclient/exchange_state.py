"""One request and its replies, for both kinds of exchange: which of them a caller sees, and how it ends. Pure."""

from __future__ import annotations

from functools import cache
from typing import Any, Generic, TypeVar

import msgspec

from modelclient.calls import Call, T
from modelclient.inbox import Inbox
from modelclient.local_files import HandOver
from modelwire.errors import ConnectionLost, LocalError, ModeldError, PermissionDenied, RemoteError, TimedOut
from modelwire.operations import BY_REQUEST
from modelwire.replies import Accepted, Error, Hello, Progress, RawResult, Received, Reply
from modelwire.requests import (
    EventsSubscribe,
    FilesOffer,
    JobConfigure,
    ModelAdd,
    ModelProvision,
    ModelPull,
    ModelRepair,
    Write,
)
from modelwire.values import Configured

Item = TypeVar("Item", bound=Reply)


class ExchangeState(Generic[Item, T]):
    """Rules: give it the `inbox` of the sent request, then `poll` for items until it is `over`, then take the `value`.

    `items` are the kinds of reply that the caller sees on the way.
    """

    def __init__(self, call: Call[T], items: tuple[type[Item], ...]) -> None:
        self.request = call.request
        self.descriptors = call.descriptors
        self.cancelled = False
        """Whether the caller has asked for its end."""
        self._path = call.path
        self._handed: HandOver | None = None
        self.inbox: Inbox | None = None
        self.job: str | None = None
        self.joined = False
        self.left = False
        self._items = items
        self._value_type = call.value
        self._value: T | None = None
        self._error: ModeldError | None = None

    @property
    def over(self) -> bool:
        """The terminal reply was read, the connection has failed, or the caller has left."""
        return self.left or self._value is not None or self._error is not None

    @property
    def ends_when_left(self) -> bool:
        """Whether it is work that the daemon ends when the client leaves."""
        return not self.over and isinstance(self.request, Write) and self.request.on_disconnect == "cancel"

    @property
    def operation(self) -> str:
        return str(self.request.__struct_config__.tag)

    def poll(self) -> Item | None:
        """The next item that has arrived. None means: wait for more bytes, unless the exchange is over."""
        while self.inbox is not None and not self.over:
            try:
                reply = self.inbox.take()
            except ModeldError as error:
                self.fail(error)
                return None
            if reply is None:
                return None
            item = self._absorb(reply)
            if item is not None:
                return item
        return None

    def refused_path(self, hello: Hello, reply: Received | None = None) -> HandOver | None:
        """How to go on when the daemon does not open the path of this request (so it says in `reply`, or in the error
        that ended this exchange) and takes the open files instead: hand them over, `resume` with the request, wait on.
        None in all other cases."""
        error = reply.to_exception() if isinstance(reply, Error) else self._error
        if (
            self._path is None
            or self._handed is not None
            or not isinstance(error, PermissionDenied)
            or error.details.get("by") != "descriptors"
            or not isinstance(self.request, ModelAdd | ModelProvision | ModelPull | ModelRepair)
            or BY_REQUEST[FilesOffer].capability not in hello.capabilities
        ):
            return None
        self._error = None
        self._handed = HandOver(self.request, self._path)
        self.request = self._handed.request
        return self._handed

    def succeeded(self) -> HandOver | None:
        """The files that were handed over, once the outcome is a success: to be finished, once."""
        if self._value is None or self._handed is None:
            return None
        handed, self._handed = self._handed, None
        return handed

    def fail(self, error: ModeldError) -> None:
        """The connection's fault ends this exchange. A job that is known can be found again."""
        if isinstance(error, ConnectionLost) and self.job is not None:
            error = ConnectionLost(
                error.message, hint=f"Start again, or see what became of it with `modelctl job {self.job}`."
            )
        self._error = error

    def value(self) -> T:
        """The outcome, once over; an error is raised."""
        if self._error is not None:
            raise self._error
        if self._value is None:
            raise LocalError(f"{self.operation} was left before its terminal reply")
        return self._value

    def timed_out(self, seconds: float | None) -> TimedOut:
        return TimedOut(
            f"no reply to {self.operation} within {seconds:g} s"
            if seconds is not None
            else f"{self.operation} timed out",
            hint="Try again with a longer timeout, or see `modelctl status`: the daemon may be busy or stuck.",
        )

    def _absorb(self, reply: Received) -> Item | None:
        """An item for the caller, or None: this reply ended the exchange or is none of its items."""
        if isinstance(reply, RawResult | Error):
            try:
                self._value = _outcome(reply, self._value_type)
            except ModeldError as error:
                self._error = error
            return None
        if isinstance(reply, Accepted | Progress) and not isinstance(self.request, EventsSubscribe):
            self.job = reply.job  # a subscription gets the progress of the jobs of others
        if isinstance(reply, Accepted):
            self.joined = reply.joined
        return reply if isinstance(reply, self._items) else None


def keeping(job: str) -> Call[Configured]:
    """The request after which the daemon goes on with a job that its client leaves."""
    return Call(JobConfigure(job=job, on_disconnect="continue"), Configured)


def _outcome(reply: RawResult | Error, value: type[T]) -> T:
    """The typed value of a terminal reply; its error is raised."""
    if isinstance(reply, Error):
        raise reply.to_exception()
    try:
        decoded: T = _decoder(value).decode(reply.value)
    except msgspec.MsgspecError as error:
        raise RemoteError(
            f"the daemon's answer is no {value.__name__}: {error}",
            hint="Compare the versions with `modelctl version`.",
        ) from None
    return decoded


@cache
def _decoder(value: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(value)
