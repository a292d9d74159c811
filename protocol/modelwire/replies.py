"""The seven kinds of reply. `id` is absent when a reply belongs to no request: hello, and faults of the connection."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from modelwire import errors, limits
from modelwire.values import Counters, PeerView
from modelwire.vocabulary import Phase


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all replies."""

    terminal: ClassVar[bool] = False
    id: str | None = None


class ProtocolRange(msgspec.Struct, frozen=True):
    min: int = limits.PROTOCOL_MIN
    max: int = limits.PROTOCOL_MAX


class Hello(Reply, tag="hello", omit_defaults=True, frozen=True, kw_only=True):
    """The server speaks first."""

    protocol: ProtocolRange
    server: str
    instance: str
    store: str
    max_request: int
    max_reply: int
    capabilities: tuple[str, ...]
    peer: PeerView


class Accepted(Reply, tag="accepted", frozen=True, kw_only=True):
    """A write was admitted or joined. Position 0 is running; a new `accepted` reports a new position."""

    job: str
    position: int
    joined: bool = False


class Progress(Reply, tag="progress", frozen=True, kw_only=True):
    """How far a job is: see `Counters`."""

    job: str
    phase: Phase
    bytes_done: int
    bytes_total: int | None
    network_bytes: int
    verified_bytes: int
    reused_bytes: int
    committed_bytes: int
    rate_bps: int | None
    eta_s: float | None
    source: str | None
    attempt: int
    files_done: int
    files_total: int | None

    @classmethod
    def of(cls, id: str, job: str, now: Counters) -> Progress:  # noqa: A002 - the wire's word
        return cls(id=id, job=job, **msgspec.structs.asdict(now))


class Event(Reply, tag="event", omit_defaults=True, frozen=True, kw_only=True):
    """One line of the activity log. The event's own fields stand beside these on the wire; `fields` holds all of them
    on the receiving side, so that a newer daemon's events lose nothing."""

    seq: int
    time: str
    event: str
    job: str | None = None
    model: str | None = None
    digest: str | None = None
    peer: int | None = None
    outcome: str | None = None
    fields: dict[str, Any] = {}


class Lagged(Reply, tag="lagged", frozen=True, kw_only=True):
    """A watcher was too slow: `dropped` events are missing; subscribe with `since` = `resume_from` to read them."""

    dropped: int
    resume_from: int


class Result(Reply, tag="result", frozen=True, kw_only=True):
    """Terminal: the operation's value. On the receiving side the value is still raw JSON."""

    terminal: ClassVar[bool] = True
    value: Any


class RawResult(Reply, tag="result", frozen=True, kw_only=True):
    """A result as it is received: decoded to its operation's value by the caller that knows the operation."""

    terminal: ClassVar[bool] = True
    value: msgspec.Raw


class Error(Reply, tag="error", omit_defaults=True, frozen=True, kw_only=True):
    """Terminal when it has an id."""

    terminal: ClassVar[bool] = True
    code: str
    message: str
    retryable: bool
    hint: str | None = None
    retry_after_ms: int | None = None
    details: dict[str, Any] | None = None

    @classmethod
    def of(cls, id: str | None, fault: errors.WireError) -> Error:  # noqa: A002 - the wire's word
        return cls(
            id=id,
            code=fault.code,
            message=fault.message,
            retryable=fault.retryable,
            hint=fault.hint,
            retry_after_ms=fault.retry_after_ms,
            details=fault.details or None,
        )

    def to_exception(self) -> errors.WireError:
        return errors.from_code(
            self.code,
            self.message,
            hint=self.hint,
            retryable=self.retryable,
            retry_after_ms=self.retry_after_ms,
            details=self.details,
        )


Received = Hello | Accepted | Progress | Event | Lagged | RawResult | Error
