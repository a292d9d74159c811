"""Removes the directories that the store was in before it moved: what the store has made there, and nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from modeld.platform import files
from modeld.progress import JobProgress, check
from modeld.store.disk import former
from modeld.store.disk.durable import store_faults
from modeld.store.disk.former import Place
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import StoreLock
from modeld.store.disk.removal import Identity, directory_below, remove_entry, remove_file
from modeld.store.maintain.walk import BlobFile, Partial, walk
from modelwire.errors import NotFound, Unsupported


class Dropped(NamedTuple):
    path: str
    blobs: int
    freed: int
    notes: tuple[str, ...]


def drop_former(layout: Layout, progress: JobProgress) -> Dropped:
    """Blocks. Of each move since the last call. Interrupted, it goes on where it was at the next call."""
    note = former.former(layout)
    if note is None or not note.places:
        raise NotFound(
            "the store has no former directory: it was not moved, or that directory is gone already",
            hint="Nothing is left to do.",
        )
    dropped = [_drop(place, layout, progress) for place in note.places]
    former.forget(layout)
    return Dropped(
        note.places[0].path,
        sum(each.blobs for each in dropped),
        sum(each.freed for each in dropped),
        tuple(note for each in dropped for note in each.notes),
    )


def _drop(place: Place, layout: Layout, progress: JobProgress) -> Dropped:
    path = place.path
    with store_faults("look at", path):
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            return Dropped(path, 0, 0, (f"{path} was gone already",))
        if info.st_ino != place.inode or os.path.realpath(path) == os.path.realpath(layout.root):
            raise Unsupported(
                f"{path} is not the directory any more that the store was in: it is left as it is",
                hint="Look what it is, and remove it or move it away yourself; then ask again.",
                details={"path": path},
            )
        if mounted := files.mounts_below(os.path.realpath(path)):
            raise Unsupported(
                f"another filesystem is mounted inside {path}, at {mounted[0]}: what is there is not the store's",
                hint="Unmount it, and run the same command again.",
                details={"path": mounted[0]},
            )
    old = Layout(path)
    with contextlib.ExitStack() as held:
        if os.path.isdir(old.private):
            held.callback(StoreLock.take(old).close)
        blobs, freed = _remove(old, progress)
    with store_faults("look at", path):
        left = os.listdir(path) if os.path.isdir(path) else []
    notes = (f"what modeld did not make stays in {path}: {', '.join(sorted(left)[:5])}",) if left else ()
    return Dropped(path, blobs, freed, notes)


def _remove(old: Layout, progress: JobProgress) -> tuple[int, int]:
    blobs = freed = 0
    with store_faults("remove the files of", old.root):
        for found in walk(old, progress.stopped):
            if isinstance(found, BlobFile) and remove_file(old.root, found.parts, Identity.of(found.info)):
                blobs, freed = blobs + 1, freed + found.info.st_blocks * 512
                progress.advance(done=found.info.st_size)
            elif isinstance(found, Partial):
                remove_entry(old.root, found.parts, Identity.of(found.info))
        for parts in _own_files(old):
            check(progress)
            with directory_below(old.root, parts[:-1]) as parent:
                info = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            remove_entry(old.root, parts, Identity.of(info))
        with contextlib.suppress(FileNotFoundError):
            remove_entry(old.root, [".modeld"], Identity.of(os.lstat(old.private)))
        _remove_empty(old)
    return blobs, freed


def _own_files(old: Layout) -> Iterator[Sequence[str]]:
    for parts, suffix in ((["manifests"], ".json"), (["locks"], ".lock"), (["locks", "quarantine"], "")):
        with contextlib.suppress(FileNotFoundError), directory_below(old.root, parts) as directory:
            names = [name for name in os.listdir(directory) if name.endswith(suffix) and name != "quarantine"]
            yield from ([*parts, name] for name in names)


def _remove_empty(old: Layout) -> None:
    fanout = [f"{old.blobs_dir}/{number:02x}" for number in range(256)]
    for path in (
        *fanout,
        old.blobs_dir,
        f"{old.root}/blobs",
        old.manifests_dir,
        old.quarantine_dir,
        old.locks_dir,
        old.root,
    ):
        with contextlib.suppress(OSError):
            os.rmdir(path)
