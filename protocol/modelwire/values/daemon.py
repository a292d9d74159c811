"""What operations on the daemon, its settings, connections and events answer with."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import field

from modelwire.values.value import Value
from modelwire.vocabulary import Role


class QueueView(Value, omit_defaults=False, frozen=True, kw_only=True):
    waiting: int = 0
    running: int = 0
    capacity: int = 0
    by_priority: dict[str, int] = field(default_factory=dict)
    running_by_kind: dict[str, int] = field(default_factory=dict)


class LogView(Value, omit_defaults=False, frozen=True, kw_only=True):
    path: str = ""
    last_seq: int = 0
    lost: int = 0
    last_error: str | None = None


class RecoveryView(Value, omit_defaults=False, frozen=True, kw_only=True):
    """What the daemon found and mended when it started."""

    seconds: float = 0.0
    staging_removed: int = 0
    staging_bytes: int = 0
    jobs_resumed: int = 0
    models_failed: tuple[str, ...] = ()
    catalog_set_aside: str | None = None
    notes: tuple[str, ...] = ()


class Change(Value, omit_defaults=False, frozen=True, kw_only=True):
    """What a setting was and is: None where it is no limit. `at_start` is what the daemon starts with."""

    old: int | str | None = None
    new: int | str | None = None
    at_start: int | str | None = None


class Configured(Value, omit_defaults=False, frozen=True, kw_only=True):
    """What became of each setting; it lasts until the daemon stops, or until the job ends."""

    settings: dict[str, Change] = field(default_factory=dict)
    lasts_until: Literal["stop", "end"] = "stop"
    job: str | None = None


class HostView(Value, frozen=True, kw_only=True):
    """A host that is asked, or left alone: then `breaker` has its state, since when, and when it may be asked again.

    Half-open, one request decides: the next one, or one that is under way (`probing`).
    """

    host: str
    connections: int = 0
    breaker: Literal["open", "half-open"] | None = None
    since: str | None = None
    next_probe_s: float | None = None
    probing: bool = False


class TransferView(Value, frozen=True, kw_only=True):
    """How the network is used; what has no value is left out. `max_rate` is the limit over all downloads,
    `max_rate_at_start` the configured one."""

    max_rate: int | None = None
    max_rate_at_start: int | None = None
    hosts: tuple[HostView, ...] = ()


class SweepView(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The daemon's own sweeps. `waiting` blobs lost a name, and the first of them is looked at at `next_at`. `last_at`
    is when the last sweep of this run ended that removed something, and `last_freed_bytes` what that gave back. `error`
    is why the last one failed."""

    mode: Literal["auto", "off"] = "auto"
    running: bool = False
    waiting: int = 0
    next_at: str | None = None
    last_at: str | None = None
    last_freed_bytes: int = 0
    error: str | None = None


class ScrubView(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The daemon's scrubs. `job` is the one that runs, or is `paused`, with its bytes; `waits` while it lets other work
    go first.
    `next_at` is when the first blob is due again. `last_at` is when the last scrub ended, which looked at
    `last_checked` blobs and found `last_failed` of them bad."""

    mode: Literal["auto", "off"] = "auto"
    job: str | None = None
    paused: bool = False
    waits: bool = False
    bytes_done: int = 0
    bytes_total: int | None = None
    next_at: str | None = None
    last_at: str | None = None
    last_checked: int = 0
    last_failed: int = 0


class MoveView(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The move of the store. `job` is the one that copies it to `path`, or is `paused`. `former` are the directories
    that it was in before, and that are kept."""

    job: str | None = None
    path: str | None = None
    paused: bool = False
    bytes_done: int = 0
    bytes_total: int | None = None
    former: tuple[str, ...] = ()


class PeerView(Value, frozen=True, kw_only=True):
    uid: int
    role: Role
    gid: int | None = None


class Status(Value, frozen=True, kw_only=True):
    state: str
    server: str
    instance: str
    pid: int
    store: str
    socket: str
    started_at: str
    uptime_s: float
    connections: int
    watchers: int
    models: int
    queue: QueueView
    log: LogView
    recovery: RecoveryView
    transfer: TransferView | None = None
    sweep: SweepView | None = None
    scrub: ScrubView | None = None
    move: MoveView | None = None
    free_bytes: int | None = None
    reserved_bytes: int = 0
    auto_started: bool = False
    peers: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """What the daemon warned of when it started."""


class Welcome(Value, frozen=True, kw_only=True):
    """The answer to a client's own hello."""

    protocol: int
    capabilities: tuple[str, ...] = ()


class Description(Value, frozen=True, kw_only=True):
    """Every operation, reply and error of this daemon, as JSON Schema."""

    protocol: int
    operations: dict[str, Any]
    schema: dict[str, Any]


class Done(Value, frozen=True, kw_only=True):
    """The outcome of what has no other value: which thing it was done to."""

    target: str | None = None
    state: str | None = None


class Drained(Value, frozen=True, kw_only=True):
    """A drain has begun: how many jobs still have until the deadline, and how many wait for the next start, with the
    downloads that it resumes."""

    running: int
    waiting: int
    deadline_s: float


class EventsEnd(Value, frozen=True, kw_only=True):
    """The end of a subscription that does not follow."""

    last_seq: int
    delivered: int
