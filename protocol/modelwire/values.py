"""The typed values that operations answer with. An optional field that has no value is left out of the JSON."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from modelwire.vocabulary import JobState, ModelState, OnDisconnect, Phase, Role


class Value(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all values: unknown fields of a newer daemon are ignored by an older client."""


class ModelFile(Value, frozen=True, kw_only=True):
    """One file of a model of several files."""

    path: str
    blob: str
    size_bytes: int
    role: str | None = None


class Provenance(Value, frozen=True, kw_only=True):
    """The origin of the bytes, as the manifest records it."""

    registry: str = ""
    repo: str = ""
    revision: str = ""
    filename: str = ""


class ModelView(Value, frozen=True, kw_only=True):
    """One model: the facts of its manifest, and its state on this machine."""

    name: str
    format: str
    blob: str
    size_bytes: int
    state: ModelState
    path: str | None = None
    license: str | None = None
    source: Provenance | None = None
    produced_by: str | None = None
    produced_at: str | None = None
    reason: str | None = None
    files: tuple[ModelFile, ...] = ()
    manifest: dict[str, Any] | None = None
    verified_at: str | None = None
    used_at: str | None = None
    history: tuple[Provenanced, ...] = ()


class Added(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The outcome of adding a model."""

    name: str
    blob: str
    size_bytes: int
    format: str
    path: str
    reused: bool = False
    job: str | None = None
    files: tuple[ModelFile, ...] = ()


class Pulled(Added, omit_defaults=False, frozen=True, kw_only=True):
    """The outcome of a pull.

    `source` is the reference as it is recorded, `revision` what it meant at that moment. `current`: the name stood for
    this already. `served` is how many bytes each source gave. `note` says how what the reference left open was decided.
    """

    source: str = ""
    revision: str | None = None
    current: bool = False
    note: str | None = None
    served: dict[str, int] = field(default_factory=dict)


class Resolved(Value, frozen=True, kw_only=True):
    """A name as a path: absolute, readable without the daemon."""

    name: str
    path: str
    blob: str
    state: ModelState


class Provenanced(Value, frozen=True, kw_only=True):
    """One verification outcome, kept for good: what was checked, when, for whom, against what, by which version."""

    time: str
    blob: str
    outcome: str
    expected: str | None = None
    actual: str | None = None
    peer: int | None = None
    source: str | None = None
    tool: str | None = None
    job: str | None = None
    file: str | None = None
    served: dict[str, int] | None = None
    """Of bytes that arrived: which source gave how many of them."""


class PlanStep(Value, frozen=True, kw_only=True):
    """One step that an operation takes, or would take."""

    action: str
    path: str
    size_bytes: int = 0
    blob: str | None = None


class Copied(Value, omit_defaults=False, frozen=True, kw_only=True):
    """A model under a second name. No blob byte is copied."""

    name: str
    source: str
    blob: str
    size_bytes: int
    blobs: tuple[str, ...] = ()
    dry_run: bool = False
    plan: tuple[PlanStep, ...] = ()
    job: str | None = None


class Moved(Value, omit_defaults=False, frozen=True, kw_only=True):
    name: str
    source: str
    blob: str
    size_bytes: int
    job: str | None = None


class Removed(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The manifest is gone; its blobs stay until a sweep finds that nothing holds them.

    `blobs` are those that no other model names, and `frees_bytes` what they take. The daemon sweeps them at `frees_at`,
    None when it does not sweep by itself. `freed_bytes` were given back at once, on request.
    """

    name: str
    blob: str | None = None
    size_bytes: int = 0
    blobs: tuple[str, ...] = ()
    frees_bytes: int = 0
    frees_at: str | None = None
    freed_bytes: int = 0
    job: str | None = None


class Verified(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The outcome for one model. `actual` is the first digest that differs, or the expected one."""

    name: str
    ok: bool
    expected: str
    actual: str | None
    size_bytes: int = 0
    files: int = 1
    reason: str | None = None
    quarantine_path: str | None = None


class Verification(Value, omit_defaults=False, frozen=True, kw_only=True):
    """`models` has the failed ones first, and of very many good ones not all: `checked` is their number."""

    models: tuple[Verified, ...] = ()
    ok: bool = True
    checked: int = 0
    failed: int = 0
    size_bytes: int = 0
    job: str | None = None


class Quarantined(Value, omit_defaults=False, frozen=True, kw_only=True):
    path: str
    size_bytes: int
    reason: str
    time: str


class QuarantineList(Value, omit_defaults=False, frozen=True, kw_only=True):
    items: tuple[Quarantined, ...] = ()
    size_bytes: int = 0


class ModelUsage(Value, omit_defaults=False, frozen=True, kw_only=True):
    """`shared_bytes` are those that another model names too; `own_bytes` would go with this one."""

    name: str
    logical_bytes: int
    own_bytes: int
    shared_bytes: int


class DiskUsage(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The bytes that each part of the store takes on the disk, directories included. A file with several names counts
    once, as a blob when it is one. `other` are manifests, locks, logs and the private files beside the catalogue."""

    blobs: int = 0
    partials: int = 0
    staging: int = 0
    quarantine: int = 0
    trees: int = 0
    catalogue: int = 0
    other: int = 0


class Usage(Value, omit_defaults=False, frozen=True, kw_only=True):
    """`logical_bytes` is the sum over the models, `physical_bytes` what their blobs and those without a model have.

    `quarantine_bytes`, `partial_bytes` and `staging_bytes` (unfinished work, partial downloads included) are sizes of
    files. `on_disk_bytes` is what everything under the root takes on the disk, each file once, as `du` counts; `disk`
    has its parts. `models` has the largest first, and of very many not all.
    """

    logical_bytes: int = 0
    physical_bytes: int = 0
    shared_bytes: int = 0
    unnamed_bytes: int = 0
    quarantine_bytes: int = 0
    staging_bytes: int = 0
    partial_bytes: int = 0
    on_disk_bytes: int = 0
    disk: DiskUsage | None = None
    free_bytes: int | None = None
    models: tuple[ModelUsage, ...] = ()


class Victim(Value, omit_defaults=False, frozen=True, kw_only=True):
    path: str
    kind: str
    size_bytes: int
    reason: str


class Swept(Value, omit_defaults=False, frozen=True, kw_only=True):
    """What a sweep removed, or would remove: `removed` of them, and of very many not all in `victims`.

    `kept` counts the blobs that stay. Of these, no model names `waiting`, but their grace period is not over: the last
    of them may go in `waiting_s`, and that frees `waiting_bytes`. `notes`: what could not be looked at or removed.
    """

    victims: tuple[Victim, ...] = ()
    removed: int = 0
    freed_bytes: int = 0
    dry_run: bool = False
    kept: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    waiting_s: float | None = None
    notes: tuple[str, ...] = ()
    job: str | None = None


class ModelList(Value, omit_defaults=False, frozen=True, kw_only=True):
    models: tuple[ModelView, ...] = ()
    next: str | None = None
    damaged: tuple[str, ...] = ()


class Failure(Value, frozen=True, kw_only=True):
    """An error as a stored value: what a failed job keeps."""

    code: str
    message: str
    hint: str | None = None
    retryable: bool = False
    details: dict[str, Any] = field(default_factory=dict)


class Counters(Value, omit_defaults=False, frozen=True, kw_only=True):
    """How far a job is. No counter ever decreases within a job."""

    phase: Phase = "queued"
    bytes_done: int = 0
    bytes_total: int | None = None
    network_bytes: int = 0
    verified_bytes: int = 0
    reused_bytes: int = 0
    committed_bytes: int = 0
    rate_bps: int | None = None
    eta_s: float | None = None
    source: str | None = None
    attempt: int = 1
    files_done: int = 0
    files_total: int | None = None


class JobView(Value, frozen=True, kw_only=True):
    """One job, live or finished."""

    id: str
    kind: str
    state: JobState
    priority: int
    created_at: str
    position: int | None = None
    model: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    on_disconnect: OnDisconnect = "cancel"
    attempts: int = 0
    peer: int | None = None
    watchers: int = 0
    max_rate: int | None = None
    discarded_bytes: int | None = None
    """Only in the answer to a cancel that discards: the bytes of the partial downloads that it removed."""
    progress: Counters | None = None
    error: Failure | None = None
    value: Any = None


class JobList(Value, omit_defaults=False, frozen=True, kw_only=True):
    jobs: tuple[JobView, ...] = ()


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
