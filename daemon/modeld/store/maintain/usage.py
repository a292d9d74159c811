"""How many bytes the models are, how many the store takes for them, and what would come back with each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from modeld.store.blobs.quarantine import kept
from modeld.store.disk.layout import Layout
from modelwire.values import ModelUsage, Usage

SHOWN: Final = 20_000
"""Models of one answer, the largest: 3 MB, where a reply may have 8."""

_DIGEST = re.compile(r"[0-9a-f]{64}")

Named = Mapping[str, Mapping[str, int]]
"""By model: its blobs in hex, and how many of its bytes each stands for (twice, when two files are the same)."""


def usage(layout: Layout, named: Named, free: int | None) -> Usage:
    """Blocking: one walk over the store."""
    there, partials = _walk(layout)
    namers = Counter(digest for blobs in named.values() for digest in blobs)
    models = [_of_model(name, blobs, there, namers) for name, blobs in named.items()]
    models.sort(key=lambda model: (-model.logical_bytes, model.name))
    return Usage(
        logical_bytes=sum(model.logical_bytes for model in models),
        physical_bytes=sum(there.values()),
        shared_bytes=sum(size for digest, size in there.items() if namers[digest] > 1),
        unnamed_bytes=sum(size for digest, size in there.items() if digest not in namers),
        quarantine_bytes=kept(layout).size_bytes,
        staging_bytes=partials + sum(_sizes(layout.staging)),
        free_bytes=free,
        models=tuple(models[:SHOWN]),
    )


def _of_model(name: str, blobs: Mapping[str, int], there: Mapping[str, int], namers: Counter[str]) -> ModelUsage:
    own = sum(there.get(digest, 0) for digest in blobs if namers[digest] == 1)
    shared = sum(there.get(digest, 0) for digest in blobs if namers[digest] > 1)
    return ModelUsage(name=name, logical_bytes=sum(blobs.values()), own_bytes=own, shared_bytes=shared)


def _walk(layout: Layout) -> tuple[dict[str, int], int]:
    """The size of each blob, the same inode counted once; and the bytes of partials."""
    blobs: dict[str, int] = {}
    inodes: set[tuple[int, int]] = set()
    partials = 0
    for fanout in _directories(layout.blobs_dir):
        for entry in _directories(fanout.path):
            if entry.name.startswith("."):
                partials += sum(_sizes(entry.path))
            elif _DIGEST.fullmatch(entry.name):
                with suppress(OSError):
                    info = os.lstat(f"{entry.path}/data")
                    known = (info.st_dev, info.st_ino) in inodes
                    inodes.add((info.st_dev, info.st_ino))
                    blobs[entry.name] = 0 if known else info.st_size
    return blobs, partials


def _directories(path: str) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry


def _sizes(path: str) -> Iterator[int]:
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with suppress(OSError):
                yield entry.stat(follow_symlinks=False).st_size
