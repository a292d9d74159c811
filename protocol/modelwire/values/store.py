"""What operations on the whole store answer with: what it takes, what was removed, what is in quarantine."""

from __future__ import annotations

from modelwire.values.value import Value


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


class UserUsage(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The models that a user has named, and their bytes, each blob once. `uid` is null for those whose owner is not
    known, `quota_bytes` where there is no limit."""

    uid: int | None
    models: int
    size_bytes: int
    quota_bytes: int | None = None


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


class Eviction(Value, omit_defaults=False, frozen=True, kw_only=True):
    """A model that may go, because its `source` has it still. `frees_bytes` counts what the models before it leave."""

    name: str
    frees_bytes: int
    used_at: str
    """The last use, or else when the model got its name."""
    source: str


class NotEvicted(Value, omit_defaults=False, frozen=True, kw_only=True):
    name: str
    size_bytes: int
    reason: str


class EvictionPlan(Value, omit_defaults=False, frozen=True, kw_only=True):
    """How to make room for `needed_bytes`, of which `available_bytes` are free for the store: the models that would go,
    the least recently used first, and those of earlier use that stay. `enough` is false when all that may go is too
    little. `notes` are sentences: what else would free bytes, and what could not be asked."""

    needed_bytes: int
    available_bytes: int
    frees_bytes: int = 0
    enough: bool = True
    evict: tuple[Eviction, ...] = ()
    stay: tuple[NotEvicted, ...] = ()
    notes: tuple[str, ...] = ()


class Usage(Value, omit_defaults=False, frozen=True, kw_only=True):
    """`logical_bytes` is the sum over the models, `physical_bytes` what their blobs and those without a model have.

    `quarantine_bytes`, `partial_bytes` and `staging_bytes` (unfinished work, partial downloads included) are sizes of
    files. `on_disk_bytes` is what everything under the root takes on the disk, each file once, as `du` counts; `disk`
    has its parts. `models` has the largest first, and of very many not all. `plan` answers `plan_bytes`.
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
    users: tuple[UserUsage, ...] = ()
    plan: EvictionPlan | None = None


class Victim(Value, omit_defaults=False, frozen=True, kw_only=True):
    path: str
    kind: str
    size_bytes: int
    reason: str


class Damaged(Value, omit_defaults=False, frozen=True, kw_only=True):
    """A model of which a blob is bad, missing or cannot be read."""

    name: str
    blob: str
    reason: str


class Scrubbed(Value, omit_defaults=False, frozen=True, kw_only=True):
    """`checked` blobs were looked at, `hashed` of them, since the last interruption, by their hash. `failed` of them
    are not what they were, or could not be read; `damaged` has the models that name these, of very many not all."""

    checked: int = 0
    hashed: int = 0
    failed: int = 0
    size_bytes: int = 0
    damaged: tuple[Damaged, ...] = ()
    job: str | None = None


class Relocated(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The store, whose path is `store`, is in the directory `path`; before, it was in `former`.

    With `drop_old` that directory is gone: `blobs` of it were removed, which frees `freed_bytes`. `notes`: what stays.
    """

    store: str
    path: str
    former: str
    models: int = 0
    blobs: int = 0
    size_bytes: int = 0
    freed_bytes: int = 0
    notes: tuple[str, ...] = ()
    job: str | None = None


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
