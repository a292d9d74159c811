"""The step that makes the path of a store lead to another directory: there is no moment without either.

A path that is a symbolic link gets another link. A path that is the directory itself becomes a link, and the directory
gets a name beside it, in one rename that exchanges the two.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import Final

from modeld.store.disk import durable
from modeld.store.disk.durable import outcome_unknown, store_faults
from modelwire.errors import AlreadyExists, PermissionDenied, Unsupported

_BY_HAND: Final = (
    "Do it yourself: stop the daemon, copy {root} to {target}, put a symbolic link to {target} in place of {root} (or"
    " set models_home), and start the daemon."
)

_NAMES: Final = 100
"""Names that are tried for the former directory."""


@dataclass(frozen=True, slots=True)
class Switch:
    root: str
    """The path of the store."""
    target: str
    """The directory that it will lead to."""
    former: str
    """Where the present directory is afterwards."""
    exchanges: bool

    def carry_out(self) -> None:
        """Blocks. After an error that says that the outcome is unknown, the path leads to the new directory."""
        with store_faults("put a link in place of", self.root):
            if self.exchanges:
                _remove_link(self.former)
                os.symlink(self.target, self.former)
                try:
                    exchanged = durable.exchange(self.former, self.root)
                except BaseException:
                    _remove_link(self.former)
                    raise
                if not exchanged:
                    _remove_link(self.former)
                    raise _cannot_exchange(self.root, self.target)
            else:
                link = _link_beside(self.root)
                _remove_link(link)
                os.symlink(self.target, link)
                durable.name_replacing(link, self.root)
        # ---- Readers find the new directory: from here on nothing is undone. ----
        parent = os.path.dirname(self.root)
        with outcome_unknown(), store_faults("sync the directory", parent):
            durable.sync_directory(parent)


def plan(root: str, target: str) -> Switch:
    """Blocks. Raises when the path cannot be made to lead elsewhere, before anything is copied."""
    parent = os.path.dirname(root)
    with store_faults("look at", root):
        info, above = os.lstat(root), os.stat(parent)
        if stat.S_ISLNK(info.st_mode):
            _check_writable(root, target, parent, above, info)
            return Switch(root, target, os.path.realpath(root), exchanges=False)
        if os.path.ismount(root):
            raise Unsupported(
                f"{root} is where a filesystem is mounted, so no link can take its place",
                hint=_BY_HAND.format(root=root, target=target),
            )
        _check_writable(root, target, parent, above, info)
        _try_exchange(root, target)
        return Switch(root, target, _free_name(root, target), exchanges=True)


def _check_writable(root: str, target: str, parent: str, above: os.stat_result, info: os.stat_result) -> None:
    mine = os.geteuid() in (0, info.st_uid, above.st_uid)
    if os.access(parent, os.W_OK | os.X_OK) and (mine or not above.st_mode & stat.S_ISVTX):
        return
    raise PermissionDenied(
        f"a link has to take the place of {root}, and the daemon's user may not change {parent}",
        hint=_BY_HAND.format(root=root, target=target),
        details={"path": parent},
    )


def _try_exchange(root: str, target: str) -> None:
    """Tries the exchange on two entries made for that: a refusal must come before days of copying."""
    directory, link = f"{root}.modeld-trial", _link_beside(root)
    try:
        _remove_link(link)
        os.symlink("trial", link)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
        if not durable.exchange(link, directory):
            raise _cannot_exchange(root, target)
    finally:
        for path in (directory, link):
            _remove_link(path)
            with contextlib.suppress(OSError):
                os.rmdir(path)


def _cannot_exchange(root: str, target: str) -> Unsupported:
    return Unsupported(
        f"the filesystem of {root} cannot exchange two names in one step",
        hint=_BY_HAND.format(root=root, target=target),
    )


def _link_beside(root: str) -> str:
    return f"{root}.modeld-link"


def _remove_link(path: str) -> None:
    """What is no link stays."""
    with contextlib.suppress(OSError):
        if os.path.islink(path):
            os.unlink(path)


def _free_name(root: str, target: str) -> str:
    """A link to the target is left over from a daemon that was killed right before the exchange."""
    for number in range(1, _NAMES + 1):
        path = f"{root}.old" if number == 1 else f"{root}.old-{number}"
        if not os.path.lexists(path) or (os.path.islink(path) and os.readlink(path) == target):
            return path
    raise AlreadyExists(
        f"{root}.old and {_NAMES - 1} more names like it are taken",
        hint="Remove the directories of earlier moves.",
    )
