"""The directory that a store is copied into: checked, marked as unfinished, and locked before the first byte."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from modeld.platform import files
from modeld.store.disk import durable, former
from modeld.store.disk.durable import store_fault, store_faults
from modeld.store.disk.former import Moving
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import StoreLock
from modeld.store.disk.root import RootUnusable, prepare_root
from modeld.store.moving.switch import Switch, plan
from modelwire.errors import AlreadyExists, InvalidRequest, PermissionDenied, SourceNotFound, Unsupported

_IN_EVERY_NEW_FILESYSTEM: Final = "lost+found"


@dataclass(frozen=True, slots=True)
class Target:
    layout: Layout
    lock: StoreLock
    switch: Switch


def real_path(path: str) -> str:
    """Blocks. Of a directory that may not be there yet."""
    return os.path.realpath(path.rstrip("/") or "/")


def claim(lock: StoreLock, path: str, *, group: str | None, sites: Sequence[str]) -> Target:
    """Blocks. Refuses what cannot become the directory of the store that is locked; goes on with an unfinished copy of
    it. The caller closes the lock."""
    old = lock.layout
    with _faults(path):
        path = real_path(path)
        _check_place(old, path, sites)
        layout = Layout(path)
        note = former.moving(layout)
    if note is not None and note.root != old.root:
        raise AlreadyExists(
            f"{path} holds an unfinished copy of the store at {note.root or 'an unknown path'}",
            hint=f"Choose another directory, or remove {path} if that copy is not wanted any more.",
            details={"path": path},
        )
    switch = plan(old.root, path)
    with _faults(path):
        if note is None:
            _check_empty(path)
            for directory, like in ((path, old.root), (layout.private, old.private)):
                with suppress(FileExistsError):
                    os.mkdir(directory)
                    os.chmod(directory, stat.S_IMODE(os.stat(like).st_mode))
                durable.sync_directory(os.path.dirname(directory))
            former.note_moving(layout, Moving(root=old.root))
        try:
            prepare_root(path, group=group, unfinished=True)
        except RootUnusable as fault:
            raise Unsupported(fault.message, hint="Name a directory on another filesystem.") from None
        _check_readers(old, path)
        taken = StoreLock.take(layout, endpoint=lock.endpoint)
        _sweep_staging(layout)
    return Target(layout, taken, switch)


def _check_place(old: Layout, path: str, sites: Sequence[str]) -> None:
    here = os.path.realpath(old.root)
    if old.root.encode(errors="ignore") != os.fsencode(old.root):
        raise Unsupported(
            f"the path of the store, {old.root!r}, is not UTF-8, so a note cannot name it",
            hint="Rename its directory first, while no daemon runs, and set models_home or MODELS_HOME.",
        )
    if path == here:
        raise InvalidRequest(f"the store is in {path} already", hint="Name the directory that it is to move to.")
    for inner, outer in ((path, here), (here, path)):
        if inner.startswith(f"{outer.rstrip('/')}/"):
            raise InvalidRequest(f"{inner} lies inside {outer}", hint="Name a directory outside of the store.")
    above = path
    while above != (above := os.path.dirname(above)):
        if os.path.lexists(Layout(above).version_file):
            raise InvalidRequest(
                f"{path} lies inside {above}, which is a store, or was one before a move",
                hint="Name a directory outside of it.",
            )
    for site in sites:
        # Not the path of the site itself: a server that is away does not answer.
        top = os.path.join(os.path.realpath(os.path.dirname(site.rstrip("/"))), os.path.basename(site.rstrip("/")))
        if f"{path}/".startswith(f"{top}/"):
            raise InvalidRequest(f"{top} is a site, which modeld only reads", hint="Name another directory.")
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        raise SourceNotFound(
            f"{parent} is not there, so {path} cannot be made",
            hint="Mount its filesystem, or make the directory.",
            details={"path": parent},
        )


def _check_empty(path: str) -> None:
    """Of a directory that a killed daemon had just made only the private one is there, without a version."""
    try:
        entries = [entry for entry in os.listdir(path) if entry != _IN_EVERY_NEW_FILESYSTEM]
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise InvalidRequest(
            f"{path} is no directory", hint="Name a directory that is empty or not there yet."
        ) from None
    if entries == [".modeld"]:
        entries = [entry for entry in os.listdir(f"{path}/.modeld") if not entry.startswith("moving-")]
    if entries:
        raise AlreadyExists(
            f"{path} is not empty: it has {', '.join(sorted(entries)[:3])}",
            hint="Name a directory that is empty or not there yet.",
            details={"path": path},
        )


def _check_readers(old: Layout, path: str) -> None:
    """Users who can read the store now must be able to afterwards."""
    private = files.private_directory(path)
    if private is not None and files.private_directory(old.root) is None:
        raise InvalidRequest(
            f"other users can read the store now, and could not enter {private}",
            hint=f"Let them: chmod 0711 {private}; or name another directory.",
            details={"path": private},
        )


def _sweep_staging(layout: Layout) -> None:
    """What a daemon that was killed had copied in part."""
    for entry in os.listdir(layout.staging):
        with suppress(OSError):
            durable.remove(f"{layout.staging}/{entry}")


@contextmanager
def _faults(path: str) -> Iterator[None]:
    """What a failed system call says of a directory that is to become the store's."""
    try:
        yield
    except OSError as fault:
        why = f"{fault.filename or path}: {fault.strerror}"
        if fault.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise PermissionDenied(
                f"the store cannot move to {path}: {why}",
                hint="Name a directory that the daemon's user can write to, on a filesystem that is mounted writable.",
                details={"path": path},
            ) from fault
        if fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise store_fault(fault, "make a store of", path) from fault
        raise Unsupported(
            f"the store cannot move to {path}: {why}", hint="Name another directory.", details={"path": path}
        ) from fault


def note_former(target: Target, old: Layout) -> None:
    """Blocks. Right before the switch: where the present directory will be, and those of earlier moves that are still
    there."""
    with store_faults("note the former directory in", target.layout.private):
        info, before = os.stat(old.root), former.former(old)
        note = Moving(
            root=old.root,
            former=target.switch.former,
            inode=info.st_ino,
            earlier=() if before is None else before.places,
        )
        former.note_moving(target.layout, note)
        durable.sync_directory(target.layout.root)
