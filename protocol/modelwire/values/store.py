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
