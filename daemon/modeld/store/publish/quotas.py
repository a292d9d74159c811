"""What the models of a user may have: so many bytes, each blob counted once, and so many names.

A model counts for the user who named it, whoever fetched its bytes first. So the limit holds for bytes that the store
has already, and for copies; and two users who name the same bytes both have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from modeld.store.catalog.history import Quota
from modeld.store.digest import Digest
from modeld.store.manifests.index import Index
from modeld.store.names import ModelName
from modelwire.errors import QuotaExceeded
from modelwire.units import rounded_size


class Owned(NamedTuple):
    models: int
    blobs: dict[str, int]
    """In hex, with their sizes."""

    @property
    def bytes(self) -> int:
        return sum(self.blobs.values())


def owned_by(index: Index, quota: Quota, *, without: ModelName | None = None) -> Owned:
    """Blocking: what the user has, but for one name."""
    models, blobs = 0, dict[str, int]()
    for entry in index.all_entries():
        if entry.manifest is None or entry.owner is None or not quota.counts(entry.owner):
            continue
        if without is None or entry.name.key != without.key:
            models += 1
            blobs.update((digest.hex, size) for digest, size in entry.manifest.blobs().items())
    return Owned(models, blobs)


def check_quota(
    index: Index,
    quota: Quota | None,
    name: ModelName,
    blobs: Mapping[Digest, int],
    kept: Mapping[Digest, int] | None = None,
) -> None:
    """Blocking. Raises QuotaExceeded when the user may not have one more model of these blobs, or in place of what the
    name stands for; `kept` are the blobs of what it stood for, when that is kept under another name of the user."""
    more_names = 0 if kept is None else 1
    if quota is None or (
        quota.bytes is None and quota.models is not None and len(index.names()) + more_names < quota.models
    ):
        return  # whoever owns them, there are not so many: a store of 10,000 models takes 40 ms to look through
    owned = owned_by(index, quota, without=name)
    if kept is not None:
        owned = Owned(owned.models + 1, owned.blobs | {digest.hex: size for digest, size in kept.items()})
    if quota.models is not None and owned.models + 1 > quota.models:
        raise QuotaExceeded(
            f"uid {quota.user} has {owned.models} models, the most that one user may have",
            hint="Remove some of them, or ask the operator to raise `models_per_user` in `[limits]`.",
            details={"uid": quota.user, "models": owned.models, "limit": quota.models},
        )
    more = sum(size for digest, size in blobs.items() if digest.hex not in owned.blobs)
    check_bytes(quota, owned.bytes, more)


def check_bytes(quota: Quota, owned: int, more: int, promised: int = 0) -> None:
    if quota.bytes is None or owned + promised + more <= quota.bytes:
        return
    running = f" and {rounded_size(promised)} are promised to running jobs" if promised else ""
    raise QuotaExceeded(
        f"{rounded_size(more)} are needed, and the models of uid {quota.user} may have {rounded_size(quota.bytes)}:"
        f" they have {rounded_size(owned)}{running}",
        hint="Remove some of them with `modelctl rm NAME`, or ask the operator to raise your `[quota]`.",
        details={
            "uid": quota.user,
            "quota_bytes": quota.bytes,
            "owned_bytes": owned,
            "promised_bytes": promised,
            "missing_bytes": owned + promised + more - quota.bytes,
        },
    )
