"""The store's root: which directory it is, and whether that directory can hold a store.

`ConfigError` when nothing says where the store is, `RootUnusable` or `PermissionDenied` when it cannot be there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Mapping
from functools import partial

from modeld.config import ConfigError
from modeld.platform import accounts
from modeld.store.disk import durable, former
from modeld.store.disk.layout import LAYOUT_VERSION, Layout
from modeld.store.disk.links import link_or_symlink
from modelwire import store_root
from modelwire.errors import ModeldError, PermissionDenied

DIRECTORY_MODE = 0o755
"""Whatever the umask: one of 000 would let everybody replace models, one of 077 hides them from readers."""

SHARED_DIRECTORY_MODE = 0o2750
"""setgid, so that whatever is made inside belongs to the group; only the daemon writes."""


class RootUnusable(ModeldError):
    """The root is known, but it cannot hold a store. Exit code 1; a refused permission is `PermissionDenied`."""


def resolve_root(configured: str | None, environ: Mapping[str, str], platform: str) -> str:
    """The root for `sys.platform`: see `modelwire.store_root`."""
    try:
        return store_root.resolve_root(configured, environ, platform)
    except store_root.NoRoot as fault:
        raise ConfigError(fault.message, hint=fault.hint) from None


def prepare_root(root: str, *, group: str | None = None, unfinished: bool = False) -> Layout:
    """Makes the missing directories of the skeleton and checks the rest. A failure removes the new ones again. An
    `unfinished` copy of another store is refused unless it is asked for."""
    layout = Layout(root if root == "/" else root.rstrip("/"))
    if not unfinished:
        _refuse_unfinished(layout)
    gid = None if group is None else _group_id(group)
    made: list[str] = []
    try:
        _make_missing(layout, gid, made)
        _check_one_filesystem(layout)
        _check_writable(layout)
        _check_version(layout)
    except BaseException as fault:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        if isinstance(fault, OSError):
            raise _unusable(layout.root, fault) from fault
        raise
    return layout


def _refuse_unfinished(layout: Layout) -> None:
    note = former.moving(layout)
    if note is None or not note.root:
        return
    if note.leads_to(layout):
        # The last step of the move, before which the daemon was killed. It is as good at a later start.
        with contextlib.suppress(OSError):
            former.settle(layout)
        return
    raise RootUnusable(
        f"{layout.root} is an unfinished copy of the store at {note.root}",
        hint=f"Use {note.root}: its daemon goes on with the copy, or begins again after `modelctl store move`."
        f" To give up the copy, remove {layout.root}.",
    )


def _make_missing(layout: Layout, gid: int | None, made: list[str]) -> None:
    ancestors: list[str] = []
    parent = os.path.dirname(layout.root)
    while parent != os.path.dirname(parent) and not os.path.lexists(parent):
        ancestors.append(parent)
        parent = os.path.dirname(parent)
    for path in reversed(ancestors):
        _make_directory(path, None, made)
    for path in layout.skeleton:
        _make_directory(path, gid, made)
    # A store whose own directories vanish with the power takes its synced blobs with it. Those that were there may be
    # from a start that was killed right before this: 0.03 ms each when there is nothing to sync.
    for path in {os.path.dirname(path) for path in (*made, *(path for path in layout.skeleton if path != layout.root))}:
        durable.sync_directory(path)


def _make_directory(path: str, gid: int | None, made: list[str]) -> None:
    try:
        os.mkdir(path, DIRECTORY_MODE)
    except FileExistsError:
        if not os.path.isdir(path):
            raise _not_a_directory(path) from None
    else:
        made.append(path)
        os.chmod(path, DIRECTORY_MODE)
    if gid is not None:
        info = os.stat(path)
        if info.st_gid != gid or info.st_mode & 0o2750 != SHARED_DIRECTORY_MODE:
            os.chown(path, -1, gid)
            os.chmod(path, SHARED_DIRECTORY_MODE)


def _not_a_directory(path: str) -> RootUnusable:
    if os.path.islink(path):
        fault = "is no directory" if os.path.exists(path) else "does not exist"
        return RootUnusable(
            f"the store cannot be at {path}: it is a symbolic link to {os.readlink(path)}, which {fault}",
            hint="Create the directory that the link points to, or mount its filesystem, or remove the link.",
        )
    return RootUnusable(
        f"the store cannot be at {path}: a file that is no directory is in the way",
        hint="Move it away, or choose another root with models_home or MODELS_HOME.",
    )


def _check_one_filesystem(layout: Layout) -> None:
    home = os.stat(layout.staging).st_dev
    for path in (layout.blobs_dir, layout.manifests_dir, layout.quarantine_dir):
        if os.stat(path).st_dev != home:
            raise RootUnusable(
                f"{path} and {layout.staging} are on two filesystems: finished bytes could not be renamed into place",
                hint=f"Put all of {layout.root} on one filesystem.",
            )


def _check_writable(layout: Layout) -> None:
    """A directory's mode says nothing about a read-only filesystem, or about what the filesystem can; only a file does.
    A full one is good enough to serve models, and to remove some."""
    probe = os.path.join(layout.staging, f"probe-{os.getpid()}")
    names = [probe, f"{probe}-named", f"{probe}-second"]
    try:
        for name in names:
            durable.remove(name)
        # Another daemon that starts removes what lies in staging.
        with contextlib.suppress(FileNotFoundError):
            _check_filesystem(layout, *names)
    except OSError as fault:
        if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                durable.remove(name)
    for path in (layout.blobs_dir, layout.manifests_dir, layout.locks_dir, layout.quarantine_dir):
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable", path)


def _check_filesystem(layout: Layout, probe: str, named: str, second: str) -> None:
    """What every publication needs: without it an add would fail after it has copied all its bytes."""
    descriptor = durable.create_file(probe)
    try:
        _require(layout, "make files read-only", lambda: durable.make_read_only(descriptor))
    finally:
        os.close(descriptor)
    what = "rename a file without replacing another, nor link to it"
    _require(layout, what, lambda: durable.name_without_replacing(probe, named))
    link = partial(link_or_symlink, named, second, hard=True, final=second)
    _require(layout, "give a file a second name, by a hard or by a symbolic link", link)


def _require(layout: Layout, what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except OSError as fault:
        if fault.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        raise RootUnusable(
            f"the store cannot be at {layout.root}: its filesystem cannot {what} ({fault.strerror})",
            hint="Choose another filesystem with models_home or MODELS_HOME; exFAT and FAT cannot hold a store.",
        ) from None


def _check_version(layout: Layout) -> None:
    """Writes the version when it is missing; refuses a version newer than this daemon's."""
    path = layout.version_file
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return _write_version(layout)
    with open(descriptor, "rb") as file:
        text = file.read(32).strip()
    if not text.isdigit():
        raise RootUnusable(
            f"{path} does not hold a layout version",
            hint=f"If this version of modeld made the store, write {LAYOUT_VERSION} into that file.",
        )
    if int(text) > LAYOUT_VERSION:
        raise RootUnusable(
            f"the store at {layout.root} has layout version {int(text)}; this modeld knows up to {LAYOUT_VERSION}",
            hint="Use the newer modeld that made it.",
        )
    return None


def _write_version(layout: Layout) -> None:
    """Writes the file before naming it: an empty version file after a power cut would make the store unusable for
    good."""
    staged = os.path.join(layout.staging, f"version-{secrets.token_hex(8)}")
    try:
        durable.write_file(staged, layout.version_file, f"{LAYOUT_VERSION}\n".encode(), mode=0o644)
    except FileNotFoundError:
        if not os.path.exists(layout.version_file):
            raise
        return  # removed by a daemon that wrote the same version before
    durable.sync_directory(layout.private)


def _group_id(group: str) -> int:
    try:
        return accounts.group_id(group)
    except KeyError:
        raise ConfigError(
            f"group is '{group}', which does not exist here", hint=f"Make the group: groupadd {group}"
        ) from None


def _there(path: str) -> str:
    """The nearest path that exists: a file that could not be made has no mode to change; its directory has."""
    while path != os.path.dirname(path) and not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _unusable(root: str, fault: OSError) -> ModeldError:
    path = fault.filename if isinstance(fault.filename, str) else root
    reason = os.strerror(fault.errno) if fault.errno else str(fault)
    if fault.errno in (errno.EACCES, errno.EPERM):
        place = _there(path)
        return PermissionDenied(
            f"permission denied on {place}, which the store at {root} needs",
            hint=f"Run modeld as the user that owns {place}, or change the owner or mode of {place}.",
            details={"path": path, "root": root},
        )
    hints = {
        errno.EROFS: "Mount it writable, or choose another root with models_home or MODELS_HOME.",
        errno.ENOSPC: "Free some space on that filesystem, or choose another root.",
        errno.EDQUOT: "Free some of your quota there, or choose another root.",
        errno.ENOTDIR: "A part of the path is a file: choose another root with models_home or MODELS_HOME.",
    }
    return RootUnusable(
        f"the store cannot be at {root}: {path}: {reason}",
        hint=hints.get(fault.errno or 0, "Check that path, or choose another root with models_home or MODELS_HOME."),
    )
