"""One frozen struct for each operation. Unknown fields, unknown operations and wrong types are refused by msgspec.

`id` ties the replies to the request. It may be left empty when a request is made: the sending connection numbers it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from modelwire import limits
from modelwire.fields import (
    Context,
    Count,
    HeaderKeys,
    Megabytes,
    Offer,
    Places,
    Rate,
    RateLimit,
    Seconds,
    Slots,
    Token,
)
from modelwire.vocabulary import PRIORITY_DEFAULT, CacheType, JobState, OnDisconnect

JOBS_LISTED: Final = 100
"""Jobs in a list whose length the client leaves open."""


class Request(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", omit_defaults=True
):
    id: str = ""


class Write(Request, frozen=True, kw_only=True):
    """What every admitted operation takes."""

    priority: int = PRIORITY_DEFAULT
    on_disconnect: OnDisconnect = "cancel"
    token: Token | None = None


# -- the connection


class Hello(Request, tag="hello", frozen=True, kw_only=True):
    protocol: int
    client: str = ""
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


class Cancel(Request, tag="cancel", frozen=True, kw_only=True):
    """Ends another request of this connection; that one still gets its terminal reply."""

    target: str


class FilesOffer(Request, tag="files.offer", frozen=True, kw_only=True):
    """Hands over files that the client has opened for reading, for a `model.add` or `model.pull` on this connection.

    The descriptors, one for each path and in that order, ride with the first byte of the line, in the same message
    (SCM_RIGHTS). A path is that of the file in the model, relative. Offers with the same `transfer`, a word of the
    client's choice, add up. `directory`: they are the files of a directory, and not of one file or a set of shards.
    """

    transfer: Token
    paths: Offer
    directory: bool = False


# -- the daemon


class DaemonStatus(Request, tag="daemon.status", frozen=True, kw_only=True):
    pass


class DaemonDescribe(Request, tag="daemon.describe", frozen=True, kw_only=True):
    pass


class DaemonDrain(Request, tag="daemon.drain", frozen=True, kw_only=True):
    """Stop in good order. `deadline_s` overrides the configured deadline for running jobs."""

    deadline_s: float | None = None


class DaemonConfigure(Request, tag="daemon.configure", frozen=True, kw_only=True):
    """Settings of the running daemon, until it stops. What is left out stays as it is.

    `max_rate` is in bytes a second over all downloads, those that run included; 0 for no limit. `running_fetches` are
    pulls at the same time, `running_bytes` jobs of each other kind; what runs or waits by then is not thrown out.
    """

    max_rate: RateLimit | None = None
    running_bytes: Slots | None = None
    running_fetches: Slots | None = None
    waiting_per_peer: Places | None = None
    waiting_total: Places | None = None


# -- models


class ModelAdd(Write, tag="model.add", frozen=True, kw_only=True):
    """Adds a local file, a directory, or a set of GGUF shards (by any part) to the store.

    The path is absolute: the daemon has another working directory. `move` removes the source once the model is
    there, `link` lets the store and the source share their bytes. `force_format` stores also a file that is certainly
    no model: an error page, a pointer, a file that is cut off; `strict_format` only what is read and is what its name
    promises. With `transfer` the files are those that were offered under that word, and the daemon opens no path: it
    only says where they are from.
    """

    path: str
    name: str | None = None
    sha256: str | None = None
    replace: bool = False
    license: str | None = None
    move: bool = False
    link: bool = False
    force_format: bool = False
    strict_format: bool = False
    transfer: Token | None = None


class ModelPull(Write, tag="model.pull", frozen=True, kw_only=True):
    """Fetches what a reference names into the store: from the network, from this machine, or from the store itself.

    `directory` is where relative paths start. `sha256` is of a model of one file, and stronger than what its source
    says; `include` and `exclude` are globs over the paths of a model of many. `offline` opens no connection for this
    one. `max_rate` is in bytes a second. `force_format` and `strict_format` are as for an add. `credentials` is a token
    of the hub, or `user:password` elsewhere: for the host of the reference alone, and kept in memory alone. `transfer`
    is as for an add, with the path of a file or directory of this machine.
    """

    ref: str
    name: str | None = None
    sha256: str | None = None
    replace: bool = False
    license: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    offline: bool = False
    max_rate: Rate | None = None
    directory: str | None = None
    force_format: bool = False
    strict_format: bool = False
    credentials: str | None = None
    transfer: Token | None = None


class ModelRegister(Request, tag="model.register", frozen=True, kw_only=True):
    """Makes a model known before its bytes are here. `manifest` is the document that describes it, the block `model` of
    manifests; the name is its `model_id` unless another is given."""

    manifest: dict[str, Any]
    name: str | None = None


class ModelList(Request, tag="model.list", frozen=True, kw_only=True):
    """`after` is the `next` of the page before, with the same filter and order.

    `filter` is a list of conditions that all have to hold: `size>1GB,format=gguf`. `sort` is a key, with `-` before it
    for the other direction.
    """

    after: str | None = None
    limit: Count | None = None
    filter: str | None = None
    sort: str | None = None


class ModelShow(Request, tag="model.show", frozen=True, kw_only=True):
    """`keys` are those of the header whose values are requested, or patterns with `*`; `tensors` requests the list of
    its tensors. The estimate of the video memory is for a `context` of so many tokens, by default all that the model
    was made for, and a cache of this type, as llama.cpp names them."""

    name: str
    keys: HeaderKeys = ()
    tensors: bool = False
    context: Context | None = None
    cache_type: CacheType = "f16"


class ModelFit(Request, tag="model.fit", frozen=True, kw_only=True):
    """Whether this machine has what a model needs. `vram_mb` and `ram_mb` are assumed instead of what it has, in MB of
    1024 x 1024 bytes; 0 assumes that there is none."""

    name: str
    vram_mb: Megabytes | None = None
    ram_mb: Megabytes | None = None


class ModelResolve(Request, tag="model.resolve", frozen=True, kw_only=True):
    """`file` is one of the files of a model of several, by its path in the model."""

    name: str
    file: str | None = None


class LeaseAcquire(Request, tag="lease.acquire", frozen=True, kw_only=True):
    """Holds a model while a program uses it: neither its bytes nor its name are removed.

    The lease ends with the connection. One that is `detached` outlives the connection, and the daemon, until `ttl_s`
    seconds have passed or somebody releases it. `purpose` is for people.
    """

    name: str
    purpose: str = ""
    detached: bool = False
    ttl_s: float = limits.LEASE_SECONDS


class LeaseRelease(Request, tag="lease.release", frozen=True, kw_only=True):
    lease: str


class ModelCopy(Write, tag="model.copy", frozen=True, kw_only=True):
    """A second name for the same bytes. With `dry_run` only the plan. A model of a site is copied into the store; with
    `link` its files get a second name there instead."""

    source: str
    destination: str
    dry_run: bool = False
    link: bool = False


class ModelMove(Write, tag="model.move", frozen=True, kw_only=True):
    """Another name instead of the present one; at every moment one of the two resolves."""

    source: str
    destination: str


class ModelRemove(Write, tag="model.remove", frozen=True, kw_only=True):
    """Removes the name, not the bytes. `force` also when a client holds the model. With `now` the bytes that no other
    model needs go too, without a grace period."""

    name: str
    force: bool = False
    now: bool = False


class ModelPin(Write, tag="model.pin", frozen=True, kw_only=True):
    """Keeps a model for good: it is removed only by force, and never to make room."""

    name: str


class ModelUnpin(Write, tag="model.unpin", frozen=True, kw_only=True):
    name: str


class ModelVerify(Write, tag="model.verify", frozen=True, kw_only=True):
    """Hashes the bytes of these models, or of all. `quick` compares them with the checksums of their blocks, in a fifth
    of the time, and hashes only what differs or has none."""

    names: tuple[str, ...] = ()
    all: bool = False
    quick: bool = False


class ModelRepair(Write, tag="model.repair", frozen=True, kw_only=True):
    """Brings back the bytes of these models, or of all, that are damaged or missing: first looks at them as a quick
    verification does, then takes the blocks that are still good from the quarantine, and the others from where they
    were pulled from.

    `from` is the absolute path of a file or directory of this machine, whose blocks are taken first. `transfer` is as
    for an add, with that path.
    """

    names: tuple[str, ...] = ()
    all: bool = False
    from_: str | None = msgspec.field(default=None, name="from")
    transfer: Token | None = None


# -- the store


class StoreUsage(Request, tag="store.usage", frozen=True, kw_only=True):
    """With `plan_bytes` also what would have to go to make room for so many bytes. Nothing is removed."""

    plan_bytes: Count | None = None


class StoreQuarantine(Request, tag="store.quarantine", frozen=True, kw_only=True):
    pass


class StoreSweep(Write, tag="store.sweep", frozen=True, kw_only=True):
    """Removes what nothing holds. With `dry_run` only reports what that is.

    `grace_s` stands for the store's own grace period this once: 0 takes what lost its name a moment ago. `partials`
    also takes downloads that no open job needs, however recent they are. `quarantine` takes what is in quarantine,
    however recent, and nothing else.
    """

    dry_run: bool = False
    grace_s: Seconds | None = None
    partials: bool = False
    quarantine: bool = False


class StoreScrub(Write, tag="store.scrub", frozen=True, kw_only=True):
    """Reads all blobs that models name again, beside all other work: first those that nobody has looked at for the
    longest time, by the checksums of their blocks or, every so many times, by their hash.

    `full` hashes all of them. `due` looks only at those whose time has come by the configuration.
    """

    full: bool = False
    due: bool = False


class StoreMove(Write, tag="store.move", frozen=True, kw_only=True):
    """Moves the whole store to the directory at `path`, which is empty or not there yet; meanwhile its models are
    served. The path of the store leads there afterwards, and the directory that it was in stays.

    `drop_old` without a `path` removes that directory.
    """

    path: str | None = None
    drop_old: bool = False


# -- jobs


class JobList(Request, tag="job.list", frozen=True, kw_only=True):
    state: JobState | None = None
    limit: Count = JOBS_LISTED


class JobShow(Request, tag="job.show", frozen=True, kw_only=True):
    job: str


class JobAttach(Request, tag="job.attach", frozen=True, kw_only=True):
    """Progress and the outcome of a job, from any connection."""

    job: str


class JobCancel(Request, tag="job.cancel", frozen=True, kw_only=True):
    """Ends a job; what has arrived is kept for the next time. With `discard` its partial downloads are removed, also
    those of a job that has ended."""

    job: str
    discard: bool = False


class JobPause(Request, tag="job.pause", frozen=True, kw_only=True):
    job: str


class JobResume(Request, tag="job.resume", frozen=True, kw_only=True):
    job: str


class JobPrioritize(Request, tag="job.prioritize", frozen=True, kw_only=True):
    job: str
    priority: int


class JobConfigure(Request, tag="job.configure", frozen=True, kw_only=True):
    """Settings of one job, waiting or running, until it ends. What is left out stays as it is.

    `max_rate` is in bytes a second, of a pull, beside what all downloads may together; 0 for no limit of its own.
    `on_disconnect` is as in a write: with `continue` the job goes on when those that asked for it have left.
    """

    job: str
    priority: int | None = None
    max_rate: RateLimit | None = None
    on_disconnect: OnDisconnect | None = None


# -- events


class EventsSubscribe(Request, tag="events.subscribe", frozen=True, kw_only=True):
    """Events from the log after `since`, then live ones.

    Without `since`: live only, or the newest `last` before that. `progress` adds the running jobs' progress replies.
    With `follow` false it ends with what the log holds now.
    """

    since: Count | None = None
    last: Count | None = None
    follow: bool = True
    progress: bool = False
    events: tuple[str, ...] = ()
    model: str | None = None
    job: str | None = None
