"""The settings: every key, its default, and the description that `modeld --print-config` shows above it.

The tree has the shape of the file: `Settings` is the top level, and each Struct in it is a table.
"""

from __future__ import annotations

import os
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr

from modeld.config.node import NodeSettings
from modeld.config.trust import TrustSettings
from modelwire import limits
from modelwire.units import SLOWEST_RATE, Duration, Rate, Size
from modelwire.vocabulary import Role

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json", "journal"]
SweepMode = Literal["auto", "off"]
EvictMode = Literal["auto", "off"]

MAX_BYTE_JOBS: Final = 64
FETCHES: Final = 3
"""More pulls at once share the same bandwidth and each ends later; a single one leaves it unused while its source is
slow."""

MIN_RATE: Final = Rate(16 * 1024)
"""A tenth of a slow mobile line. A source that sends so little takes a day for a gigabyte."""

MAX_CONNECTIONS: Final = 128
"""Servers take more connections from one client for an attack."""

_ADDRESSES: Final = ("https://", "http://")
MIRRORED: Final = ("hf:", "ollama:", "oci:", "s3:", *_ADDRESSES)
"""The kinds of references that can have mirrors: another host can hold what they name."""

LOCK_WAIT: Final = Duration(30)
"""Another tool holds a name's lock while it writes one small file; one that holds it longer is stuck or downloading."""

SHORTEST_SCRUB: Final = Duration(3600)
"""A scrub that begins anew all the time is a typing error."""

SHORTEST_TIMEOUT: Final = 0.1
"""Below a tenth of a second a timeout ends healthy peers on a busy machine."""


def usable_cores() -> int:
    """Cores that this process may run on: a container's share, not the whole machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_byte_jobs() -> int:
    """One for each core, from 1 to 4: hashing fills a core, and beyond four the disk is the limit."""
    return max(1, min(4, usable_cores()))


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    """The base of all tables: frozen, and an unknown key is an error."""


class SiteRoot(_Table, frozen=True, kw_only=True):
    """Another root of the same layout, whose models this daemon gives out too, and which it never changes."""

    path: str

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or self.path.rstrip("/") != os.path.normpath(self.path):
            raise ValueError("path: expected an absolute path without . or ..")
        force_setattr(self, "path", self.path.rstrip("/"))


class StoreSettings(_Table, frozen=True, kw_only=True):
    group: Annotated[str | None, Meta(description="Unix group that new files of the store belong to")] = None
    min_free: Annotated[Size, Meta(description="space to leave free on the store's filesystem")] = Size(1 << 30)
    max_bytes: Annotated[
        Size | None, Meta(description='most bytes that the store may hold; "none" for no limit but min_free')
    ] = None
    unfinished_percent: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="how much of the free space the unfinished files of one user may take: downloads, copies and"
            " quarantine; the daemon's own user and admins may take all",
        ),
    ] = 50
    keep_cache: Annotated[
        bool,
        Meta(description="keep bytes just written in the page cache: a faster first load, more memory pressure"),
    ] = False
    grace: Annotated[Duration, Meta(description="how long a blob that no model uses is safe from a sweep")] = Duration(
        3600
    )
    sweep: Annotated[
        SweepMode,
        Meta(description="auto: the daemon sweeps once that time is over; off: only `modelctl sweep` frees space"),
    ] = "auto"
    evict: Annotated[
        EvictMode,
        Meta(
            description="auto: a job that needs room makes the daemon remove the least recently used models that can be"
            " fetched again; off: it is refused, and says what could go"
        ),
    ] = "off"
    lock_wait: Annotated[
        Duration,
        Meta(description="how long a change waits for a name that another tool has locked; 0 to refuse at once"),
    ] = LOCK_WAIT
    site: Annotated[
        tuple[SiteRoot, ...],
        Meta(
            description="other stores, which are only read: a name that this store lacks is looked for in them, in this"
            ' order; written as [[store.site]] with path = "/srv/models"'
        ),
    ] = ()


class ScrubSettings(_Table, frozen=True, kw_only=True):
    every: Annotated[
        Duration | None,
        Meta(description='how often each blob is read again, beside other work, to find rot; "none" for never'),
    ] = Duration(30 * 86_400)
    rate: Annotated[Rate | None, Meta(description='most bytes a second that this reads; "none" for no limit')] = Rate(
        50_000_000
    )
    full_every: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="each so-many-th time a blob is hashed, else its blocks are compared with their checksums",
        ),
    ] = 4

    def __post_init__(self) -> None:
        if self.every is not None and self.every < SHORTEST_SCRUB:
            raise ValueError("every: expected at least 1h, or none for never")
        if self.rate is not None and self.rate < SLOWEST_RATE:
            raise ValueError("rate: expected at least 1KB, or none for no limit")


class LimitSettings(_Table, frozen=True, kw_only=True):
    connections_per_peer: Annotated[
        int, Meta(ge=1, le=65536, description="connections that one user may have open")
    ] = limits.CONNECTIONS_PER_PEER
    requests_per_peer: Annotated[
        int, Meta(ge=1, le=65536, description="requests in flight over all connections of one user")
    ] = limits.REQUESTS_PER_PEER
    models_per_user: Annotated[
        int, Meta(ge=1, le=10_000_000, description="models that one user without the role admin may have")
    ] = 10_000
    waiting_per_peer: Annotated[
        int, Meta(ge=0, le=65536, description="jobs that one user may have waiting, and as many again paused")
    ] = limits.WAITING_PER_PEER
    waiting_total: Annotated[
        int,
        Meta(
            ge=0,
            le=65536,
            description="jobs that may wait, over all users; a user with less than an equal part gets in beyond it",
        ),
    ] = limits.WAITING_TOTAL
    running_bytes: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_BYTE_JOBS,
            description="jobs of each kind that read or hash files of this machine at the same time; by default one for"
            " each core, at most 4",
        ),
    ] = field(default_factory=default_byte_jobs)
    running_fetches: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_BYTE_JOBS,
            description="pulls from a network that run at once; other jobs do not wait for them",
        ),
    ] = FETCHES
    min_rate: Annotated[
        Rate,
        Meta(
            description="a pull that receives less than this in a second, for a minute, goes back into the queue while"
            " others wait; 0 for never"
        ),
    ] = MIN_RATE
    write_stall: Annotated[
        Duration, Meta(description="a connection whose client takes no reply for this long is closed")
    ] = Duration(limits.WRITE_STALL_SECONDS)
    read_stall: Annotated[
        Duration,
        Meta(description="a connection is closed when a request takes longer than this to arrive"),
    ] = Duration(limits.READ_STALL_SECONDS)
    watcher_queue: Annotated[
        int,
        Meta(
            ge=1,
            le=65536,
            description="events that may wait for a slow watcher; beyond, it gets `lagged`",
        ),
    ] = limits.WATCHER_QUEUE

    def __post_init__(self) -> None:
        _at_least("write_stall", self.write_stall)
        _at_least("read_stall", self.read_stall)


class LentCredentials(_Table, frozen=True, kw_only=True):
    """The credentials of the daemon's user, lent to other users for the references that begin with `match`."""

    match: str
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.match.startswith(MIRRORED):
            raise ValueError(f"match: expected a reference's beginning with one of {', '.join(MIRRORED)}")
        if self.match in _ADDRESSES or (self.match.startswith(_ADDRESSES) and "@" in self.match):
            raise ValueError("match: expected an address with its host, without a user")
        if not self.users and not self.groups:
            raise ValueError("users, groups: expected at least one user or group")


class AccessSettings(_Table, frozen=True, kw_only=True):
    users: Annotated[
        dict[str, Role],
        Meta(description="role by user name or numeric uid; the daemon's own user and root are admin"),
    ] = field(default_factory=dict)
    groups: Annotated[
        dict[str, Role], Meta(description="role by group name or numeric gid; the highest role counts")
    ] = field(default_factory=dict)

    credentials: Annotated[
        tuple[LentCredentials, ...],
        Meta(
            description="who else may use the daemon's tokens and passwords, written as [[access.credentials]] with "
            'match = "hf:org/", users = ["name"] and groups = ["name"]'
        ),
    ] = ()

    shared_names: Annotated[
        bool,
        Meta(description="every user with the role write may rename, replace and remove the models of all users"),
    ] = False

    networks: Annotated[
        tuple[str, ...],
        Meta(
            description="networks that pulls of users other than the daemon's own may connect to; by default all but"
            " this machine and its links"
        ),
    ] = ()

    def __post_init__(self) -> None:
        from ipaddress import ip_network

        faults = []
        for network in self.networks:
            try:
                ip_network(network)
            except ValueError as fault:
                faults.append(str(fault))
        if faults:
            raise ValueError(f"networks: {'; '.join(faults)}")

    @property
    def opens_to_others(self) -> bool:
        """Whether users other than the daemon's own and root can have a role."""
        return bool(self.users or self.groups)


class DaemonSettings(_Table, frozen=True, kw_only=True):
    idle_exit: Annotated[
        Duration,
        Meta(description="a daemon that a client started exits after this long without work; 0 for never"),
    ] = Duration(900)
    drain_deadline: Annotated[
        Duration, Meta(description="how long a stopping daemon waits for running jobs to reach a safe point")
    ] = Duration(20)
    allow_root: Annotated[
        bool, Meta(description="a daemon that root runs may serve other users, those of [access]")
    ] = False
    endpoint_check: Annotated[
        Duration, Meta(description="how often the daemon checks that the socket at its path is still its own")
    ] = Duration(5)

    def __post_init__(self) -> None:
        _at_least("endpoint_check", self.endpoint_check)


class JobSettings(_Table, frozen=True, kw_only=True):
    keep: Annotated[Duration, Meta(description="how long a finished job stays in the list")] = Duration(30 * 86_400)
    ageing: Annotated[Duration, Meta(description="a waiting job rises by one priority after each such time")] = (
        Duration(30)
    )

    def __post_init__(self) -> None:
        _at_least("ageing", self.ageing)


class ActivitySettings(_Table, frozen=True, kw_only=True):
    max_bytes: Annotated[Size, Meta(description="size beyond which the daemon rotates the log")] = Size(16 * limits.MIB)
    generations: Annotated[int, Meta(ge=0, le=1000, description="how many rotated logs to keep")] = 3

    def __post_init__(self) -> None:
        # A log shorter than the longest line would be rotated at each write.
        if self.max_bytes < limits.MIB:
            raise ValueError("max_bytes: expected at least 1MiB")


class TransferSettings(_Table, frozen=True, kw_only=True):
    offline: Annotated[bool, Meta(description="open no connection; only models in the store are available")] = False
    max_rate: Annotated[
        Rate | None,
        Meta(description='bytes a second over all downloads, such as "20MB"; "none" or 0 for no limit'),
    ] = None
    connections_per_file: Annotated[
        int, Meta(ge=1, le=MAX_CONNECTIONS, description="most connections for one file")
    ] = 16
    connections_per_host: Annotated[
        int, Meta(ge=1, le=MAX_CONNECTIONS, description="most connections to one host, over all files and jobs")
    ] = 24
    files_at_once: Annotated[int, Meta(ge=1, le=64, description="files of one model to download at the same time")] = 3
    plain_hosts: Annotated[
        tuple[str, ...], Meta(description="hosts other than this machine that may be reached without encryption")
    ] = ()

    def __post_init__(self) -> None:
        if self.max_rate == 0:
            force_setattr(self, "max_rate", None)
        if self.max_rate is not None and self.max_rate < SLOWEST_RATE:
            raise ValueError("max_rate: expected at least 1KB, or none for no limit")


class Mirror(_Table, frozen=True, kw_only=True):
    """Another place for the references that begin with `match`, asked before the place that they name."""

    match: str
    url: str

    def __post_init__(self) -> None:
        if not self.match.startswith(MIRRORED):
            raise ValueError(f"match: expected a reference's beginning with one of {', '.join(MIRRORED)}")
        if not self.url.startswith(_ADDRESSES):
            raise ValueError("url: expected the address of a hub or registry, such as https://mirror.example")
        if self.match.startswith(_ADDRESSES) and not (self.match.endswith("/") and self.url.endswith("/")):
            # Without the slash, joining `https://mirror.example` and `models.example/m` would name another host.
            raise ValueError("match, url: expected two addresses that end with /: what follows is the same in both")


class LogSettings(_Table, frozen=True, kw_only=True):
    level: Annotated[LogLevel, Meta(description="lowest level to log: debug, info, warning or error")] = "info"
    format: Annotated[LogFormat, Meta(description="auto, console, json or journal; auto looks at standard error")] = (
        "auto"
    )


class Settings(_Table, frozen=True, kw_only=True):
    models_home: Annotated[str | None, Meta(description="root of the store; overrides the variable MODELS_HOME")] = None
    socket: Annotated[str | None, Meta(description="path of the socket; the variable MODELD_SOCKET overrides it")] = (
        None
    )
    state_dir: Annotated[str | None, Meta(description="directory of the activity log and other state")] = None
    mirror: Annotated[
        tuple[Mirror, ...],
        Meta(
            description="mirrors of hubs, registries, buckets and addresses, written as [[mirror]] with "
            'match = "hf:" and url = "https://…"'
        ),
    ] = ()
    store: StoreSettings = field(default_factory=StoreSettings)
    scrub: ScrubSettings = field(default_factory=ScrubSettings)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    quota: Annotated[
        dict[str, Size],
        Meta(description='most bytes that the models of a user may have, by user name or uid: bob = "200GB"'),
    ] = field(default_factory=dict)
    trust: TrustSettings = field(default_factory=TrustSettings)
    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    jobs: JobSettings = field(default_factory=JobSettings)
    activity: ActivitySettings = field(default_factory=ActivitySettings)
    node: NodeSettings = field(default_factory=NodeSettings)
    log: LogSettings = field(default_factory=LogSettings)


def _at_least(name: str, value: float) -> None:
    if value < SHORTEST_TIMEOUT:
        raise ValueError(f"{name}: expected at least {SHORTEST_TIMEOUT:g} s")
