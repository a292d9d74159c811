"""What can be changed while the daemon runs, and what it is now: part of `modelwire.values`."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from modelwire.value import Value


class Change(Value, omit_defaults=False, frozen=True, kw_only=True):
    """What a setting was and is: None where it is no limit. `at_start` is what the daemon starts with."""

    old: int | None = None
    new: int | None = None
    at_start: int | None = None


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
