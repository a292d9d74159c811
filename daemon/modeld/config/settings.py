"""The settings: every key, its default, and the sentence that `modeld --print-config` shows beside it.

The shape of the tree is the shape of the file: `Settings` is the top level, each Struct in it a table.
"""

from __future__ import annotations

import os
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr

from modelwire import limits
from modelwire.units import SLOWEST_RATE, Duration, Rate, Size
from modelwire.vocabulary import Role

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json", "journal"]

MAX_BYTE_JOBS: Final = 64
FETCHES: Final = 3
"""What a line is shared by well: more of them only end later, one after the other would leave a slow source's time
unused."""

MAX_CONNECTIONS: Final = 128
"""More than this many to one host is what servers take for an attack."""

_ADDRESSES: Final = ("https://", "http://")
MIRRORED: Final = ("hf:", "ollama:", "oci:", "s3:", *_ADDRESSES)
"""Kinds of references whose hosts are interchangeable: a hub and a registry say which bytes they mean."""

LOCK_WAIT: Final = Duration(30)
"""Another tool holds a name's lock while it writes one small file; who holds it longer is stuck or fetching."""

SHORTEST_TIMEOUT: Final = 0.1
"""Below a tenth of a second a timeout ends healthy peers on a busy machine."""


def usable_cores() -> int:
    """Cores that this process may run on: a container's share, not the whole machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_byte_jobs() -> int:
    """One for each core, from 1 to 4: hashing fills a core, and beyond four the disk is what is waited for."""
    return max(1, min(4, usable_cores()))


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    """What all tables share: frozen, and closed to keys that nobody would read."""


class StoreSettings(_Table, frozen=True, kw_only=True):
    group: Annotated[str | None, Meta(description="Unix group that new files of the store belong to")] = None
    min_free: Annotated[Size, Meta(description="space that is left free on the store's filesystem")] = Size(1 << 30)
    max_bytes: Annotated[
        Size | None, Meta(description='most bytes that the store may hold; "none" for no limit but the disk')
    ] = None
    keep_cache: Annotated[
        bool, Meta(description="keep bytes just written in the page cache: faster first load, more memory pressure")
    ] = False
    grace: Annotated[Duration, Meta(description="how long a blob that nothing holds is safe from a sweep")] = Duration(
        3600
    )
    lock_wait: Annotated[
        Duration,
        Meta(description="how long a change waits for another tool that holds its name; 0 for not at all"),
    ] = LOCK_WAIT


class LimitSettings(_Table, frozen=True, kw_only=True):
    connections_per_peer: Annotated[
        int, Meta(ge=1, le=65536, description="connections that one user may hold open")
    ] = limits.CONNECTIONS_PER_PEER
    requests_per_peer: Annotated[
        int, Meta(ge=1, le=65536, description="requests in flight over all connections of one user")
    ] = limits.REQUESTS_PER_PEER
    waiting_per_peer: Annotated[int, Meta(ge=0, le=65536, description="jobs that one user may have waiting")] = (
        limits.WAITING_PER_PEER
    )
    waiting_total: Annotated[int, Meta(ge=0, le=65536, description="jobs that may wait in all")] = limits.WAITING_TOTAL
    running_bytes: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_BYTE_JOBS,
            description="jobs of each kind that move bytes of this machine at the same time; by default one for each"
            " core, at most 4",
        ),
    ] = field(default_factory=default_byte_jobs)
    running_fetches: Annotated[
        int,
        Meta(ge=1, le=MAX_BYTE_JOBS, description="pulls from a network at the same time; others do not wait for them"),
    ] = FETCHES
    write_stall: Annotated[
        Duration, Meta(description="a peer that takes no reply for this long loses its connection")
    ] = Duration(limits.WRITE_STALL_SECONDS)
    read_stall: Annotated[Duration, Meta(description="half a request that does not go on for this long is dropped")] = (
        Duration(limits.READ_STALL_SECONDS)
    )
    watcher_queue: Annotated[
        int, Meta(ge=1, le=65536, description="events that a watcher may be behind before it is told that it lags")
    ] = limits.WATCHER_QUEUE

    def __post_init__(self) -> None:
        _at_least("write_stall", self.write_stall)
        _at_least("read_stall", self.read_stall)


class AccessSettings(_Table, frozen=True, kw_only=True):
    users: Annotated[
        dict[str, Role], Meta(description="right by user name or numeric uid, beside the daemon's own user and root")
    ] = field(default_factory=dict)
    groups: Annotated[dict[str, Role], Meta(description="right by group name or numeric gid; the highest wins")] = (
        field(default_factory=dict)
    )

    @property
    def opens_to_others(self) -> bool:
        """Whether anyone but the daemon's own user and root may be let in."""
        return bool(self.users or self.groups)


class DaemonSettings(_Table, frozen=True, kw_only=True):
    idle_exit: Annotated[
        Duration, Meta(description="a daemon that a client started ends after this long without work; 0 for never")
    ] = Duration(900)
    drain_deadline: Annotated[
        Duration, Meta(description="how long a stopping daemon lets running jobs reach a safe point")
    ] = Duration(20)
    endpoint_check: Annotated[
        Duration, Meta(description="how often the daemon looks whether the endpoint is still its own")
    ] = Duration(5)

    def __post_init__(self) -> None:
        _at_least("endpoint_check", self.endpoint_check)


class JobSettings(_Table, frozen=True, kw_only=True):
    keep: Annotated[Duration, Meta(description="how long finished jobs stay in the list")] = Duration(30 * 86_400)
    ageing: Annotated[Duration, Meta(description="after each such wait a job rises by one priority")] = Duration(30)

    def __post_init__(self) -> None:
        _at_least("ageing", self.ageing)


class ActivitySettings(_Table, frozen=True, kw_only=True):
    max_bytes: Annotated[Size, Meta(description="the log is rotated before a line that would pass this")] = Size(
        16 * limits.MIB
    )
    generations: Annotated[int, Meta(ge=0, le=1000, description="old logs that are kept")] = 3

    def __post_init__(self) -> None:
        # A log of less than one longest line would be rotated at each write.
        if self.max_bytes < limits.MIB:
            raise ValueError("max_bytes: expected at least 1MiB")


class TransferSettings(_Table, frozen=True, kw_only=True):
    offline: Annotated[bool, Meta(description="open no connection: only what is here is given out")] = False
    max_rate: Annotated[
        Rate | None, Meta(description='bytes a second over all downloads, such as "20MB"; "none" or 0 for no limit')
    ] = None
    connections_per_file: Annotated[
        int, Meta(ge=1, le=MAX_CONNECTIONS, description="most connections that one file is fetched over")
    ] = 16
    connections_per_host: Annotated[
        int, Meta(ge=1, le=MAX_CONNECTIONS, description="most connections to one host, over all files and jobs")
    ] = 24
    files_at_once: Annotated[
        int, Meta(ge=1, le=64, description="files of one model that are fetched at the same time")
    ] = 3
    plain_hosts: Annotated[
        tuple[str, ...], Meta(description="hosts beside this machine that may be asked without encryption")
    ] = ()

    def __post_init__(self) -> None:
        if self.max_rate == 0:
            force_setattr(self, "max_rate", None)
        if self.max_rate is not None and self.max_rate < SLOWEST_RATE:
            raise ValueError("max_rate: expected at least 1KB, or none for no limit")


class Mirror(_Table, frozen=True, kw_only=True):
    """Another place for what references of a kind mean, asked before the one that they name."""

    match: str
    url: str

    def __post_init__(self) -> None:
        if not self.match.startswith(MIRRORED):
            raise ValueError(f"match: expected a reference's beginning with one of {', '.join(MIRRORED)}")
        if not self.url.startswith(_ADDRESSES):
            raise ValueError("url: expected the address of a hub or registry, such as https://mirror.example")
        if self.match.startswith(_ADDRESSES) and not (self.match.endswith("/") and self.url.endswith("/")):
            # Without the slash `https://mirror.example` and `models.example/m` would make another host.
            raise ValueError("match, url: expected two addresses that end with /: what follows is the same in both")


class LogSettings(_Table, frozen=True, kw_only=True):
    level: Annotated[LogLevel, Meta(description="debug, info, warning or error")] = "info"
    format: Annotated[LogFormat, Meta(description="auto, console, json or journal; auto looks at standard error")] = (
        "auto"
    )


class Settings(_Table, frozen=True, kw_only=True):
    models_home: Annotated[str | None, Meta(description="root of the store; above the variable MODELS_HOME")] = None
    socket: Annotated[str | None, Meta(description="path of the endpoint; the variable MODELD_SOCKET is above it")] = (
        None
    )
    state_dir: Annotated[str | None, Meta(description="directory of the activity log and other state")] = None
    mirror: Annotated[
        tuple[Mirror, ...],
        Meta(
            description="other places for hubs, registries, buckets and addresses, as [[mirror]] with "
            'match = "hf:" and url = "https://…"'
        ),
    ] = ()
    store: StoreSettings = field(default_factory=StoreSettings)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    jobs: JobSettings = field(default_factory=JobSettings)
    activity: ActivitySettings = field(default_factory=ActivitySettings)
    log: LogSettings = field(default_factory=LogSettings)


def _at_least(name: str, value: float) -> None:
    if value < SHORTEST_TIMEOUT:
        raise ValueError(f"{name}: expected at least {SHORTEST_TIMEOUT:g} s")
