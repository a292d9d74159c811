"""Disk usage: the bytes of the models, what the whole store takes on the disk, and what removing each model would
free."""

from __future__ import annotations

import os
import stat
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from modeld.store.blobs.quarantine import kept
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import free_bytes_under
from modeld.store.maintain.walk import BlobFile, Partial, keyed_partials, walk
from modeld.store.manifests.index import Index
from modeld.store.manifests.manifests import Manifest
from modelwire.errors import WireError
from modelwire.values import DiskUsage, ModelUsage, Usage, UserUsage

SHOWN: Final = 20_000
"""Models of one answer, the largest: 3 MB, where a reply may have 8."""


async def usage(layout: Layout, index: Index, limiter: anyio.CapacityLimiter) -> Usage:
    """For the event loop: the walk over the store is done in a thread."""
    manifests = [entry.manifest async for entry in index.entries() if entry.manifest is not None]
    return await anyio.to_thread.run_sync(partial(_usage, layout, manifests), limiter=limiter)


def _usage(layout: Layout, manifests: Sequence[Manifest]) -> Usage:
    there: dict[str, int] = {}
    sizes: dict[str, int] = {}
    inodes: set[tuple[int, int]] = set()
    staged, partials = sum(_sizes(layout.staging)), 0
    for found in chain(keyed_partials(layout), walk(layout)):
        if isinstance(found, BlobFile):
            inode = (found.info.st_dev, found.info.st_ino)
            sizes[found.digest] = found.info.st_size
            there[found.digest] = 0 if inode in inodes else found.info.st_size
            inodes.add(inode)
        elif isinstance(found, Partial):
            partials += found.size
    named = [(manifest, [digest.hex for digest in manifest.blobs()]) for manifest in manifests]
    namers = Tally(digest for _, blobs in named for digest in blobs)
    models = [_of_model(manifest, blobs, there, sizes, namers) for manifest, blobs in named]
    models.sort(key=lambda model: (-model.logical_bytes, model.name))
    disk = disk_usage(layout)
    free: int | None = None
    with suppress(WireError):
        free = free_bytes_under(layout.root)
    return Usage(
        logical_bytes=sum(model.logical_bytes for model in models),
        physical_bytes=sum(there.values()),
        shared_bytes=sum(size for digest, size in there.items() if namers[digest] > 1),
        unnamed_bytes=sum(size for digest, size in there.items() if digest not in namers),
        quarantine_bytes=kept(layout).size_bytes,
        staging_bytes=staged + partials,
        partial_bytes=partials,
        on_disk_bytes=sum(msgspec.structs.astuple(disk)),
        disk=disk,
        free_bytes=free,
        models=tuple(models[:SHOWN]),
        users=tuple(_by_user(manifests)),
    )


def _by_user(manifests: Sequence[Manifest]) -> Iterator[UserUsage]:
    """The largest first."""
    models = Tally(manifest.owner for manifest in manifests)
    blobs: dict[int | None, dict[Digest, int]] = {owner: {} for owner in models}
    for manifest in manifests:
        blobs[manifest.owner].update(manifest.blobs())
    for owner in sorted(models, key=lambda owner: (-sum(blobs[owner].values()), -1 if owner is None else owner)):
        yield UserUsage(uid=owner, models=models[owner], size_bytes=sum(blobs[owner].values()))


def disk_usage(layout: Layout) -> DiskUsage:
    """Blocking. What each part takes in blocks, as `du` counts: directories too, each file once, no link followed. What
    cannot be read, or disappears meanwhile, is left out."""
    parts = {
        layout.blobs_dir: "blobs",
        layout.keyed_partials: "partials",
        layout.staging: "staging",
        layout.quarantine_dir: "quarantine",
        layout.trees: "trees",
        layout.site_trees: "trees",
    }
    blocks = dict.fromkeys((*parts.values(), "catalogue", "other"), 0)
    inodes: set[tuple[int, int]] = set()
    with suppress(OSError):
        blocks["other"] = os.stat(layout.root).st_blocks
    # The last is looked at first: a file that a tree shows counts as a blob.
    pending = [(layout.root, "other"), (layout.blobs_dir, "blobs")]
    while pending:
        directory, part = pending.pop()
        for entry, info in _entries(directory):
            mine = part
            if part == "other":
                mine = "catalogue" if entry.path.startswith(layout.catalog_path) else parts.get(entry.path, part)
            elif part == "blobs" and entry.name.startswith(".partial-"):
                mine = "partials"
            if stat.S_ISDIR(info.st_mode):
                if mine == part or mine != "blobs":  # its own directory is on the list from the start
                    pending.append((entry.path, mine))
            elif info.st_nlink > 1:
                if (info.st_dev, info.st_ino) in inodes:
                    continue
                inodes.add((info.st_dev, info.st_ino))
            blocks[mine] += info.st_blocks
    return DiskUsage(**{part: count * 512 for part, count in blocks.items()})


def _entries(directory: str) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    yield entry, entry.stat(follow_symlinks=False)
                except OSError:
                    continue
    except OSError:
        return


def _of_model(
    manifest: Manifest, blobs: Sequence[str], there: dict[str, int], sizes: dict[str, int], namers: Tally[str]
) -> ModelUsage:
    """`there` counts each file once. A model is as big as its blobs are: the manifest's sizes are for missing ones."""
    listed = ((Digest.parse(blob).hex, size) for blob, size in manifest.listed_sizes)
    logical = sum(sizes.get(digest, size) for digest, size in listed)
    own = sum(there.get(digest, 0) for digest in blobs if namers[digest] == 1)
    shared = sum(there.get(digest, 0) for digest in blobs if namers[digest] > 1)
    return ModelUsage(name=manifest.name, logical_bytes=logical, own_bytes=own, shared_bytes=shared)


def _sizes(path: str) -> Iterator[int]:
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with suppress(OSError):
                yield entry.stat(follow_symlinks=False).st_size
