"""Directories that show a model of several files under the files' own names, for engines that load directories.

A tree holds hard links to blobs (symbolic ones where the filesystem has none, or where the blob is linked from outside:
the store must not change its signature). It is made from the manifest alone and can be made again at any time: so it is
never synced, and a tree that differs from the manifest is replaced. Its directory is named after its content, so no
reader finds the files of two versions side by side.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from modeld.store.blobs.linked import Linked
from modeld.store.digest import Digest, Relinked, Signature
from modeld.store.disk import links
from modeld.store.disk.durable import make_directories, make_directory, store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.listing import Times, settled, times_of
from modeld.store.manifests.manifests import File
from modeld.store.names import ModelName

_REMEMBERED: Final = 20_000
"""Changes of links: many more than happen between the look at a blob and the publication of the model that needs it."""


class _FoundWhole(NamedTuple):
    """A tree that was found whole: its directories with their times then, and the blobs that its names lead to."""

    directories: tuple[tuple[str, Times], ...]
    blobs: frozenset[Digest]


class Trees:
    """`path` and `known_whole` are for the event loop; the rest blocks."""

    def __init__(self, layout: Layout, linked: Linked, *, site: Layout | None = None) -> None:
        """The blobs are those of the layout, or of a `site`: then the trees hold symbolic links to them."""
        self._layout = layout
        self._blobs = site or layout
        self.top = layout.trees if site is None else layout.trees_at_site(site.root)
        self._at_site = site is not None
        self.linked = linked
        self._found_whole: dict[str, _FoundWhole] = {}
        self._building = threading.Lock()
        self._relinked: dict[Signature, Signature] = {}
        """The signatures of blobs after each change of their links by a tree, by those before; the latest changes."""

    def path(self, name: ModelName, files: Sequence[File]) -> str:
        content = "".join(f"{file.path}\n{file.blob}\n" for file in files)
        return f"{self.top}/{name.stem}/{hashlib.sha256(content.encode()).hexdigest()[:32]}"

    def known_whole(self, tree: str) -> bool:
        """Whether nothing was added to the tree or removed from it since it was found whole: one stat per directory."""
        found = self._found_whole.get(tree)
        if found is None:
            return False
        try:
            return all(times_of(os.lstat(directory)) == times for directory, times in found.directories)
        except OSError:
            return False

    def replaced(self, *digests: Digest) -> None:
        """Forgets what is known of the trees that have these blobs: they lead to the old files, which have been set
        aside, and nothing in their directories shows it."""
        with self._building:
            for tree, found in list(self._found_whole.items()):
                if not found.blobs.isdisjoint(digests):
                    del self._found_whole[tree]

    def ensure(self, name: ModelName, files: Sequence[File]) -> tuple[str, list[Relinked]]:
        """Makes the tree if it is missing or differs. Raises a wire error when the disk does not allow it."""
        tree = self.path(name, files)
        with self._building, store_faults("make the tree", tree):
            if self._whole(tree, files):
                return tree, []
            return tree, self._make(tree, files)

    def remove(self, directory: str) -> list[Relinked]:
        """Removes a tree, or all trees of a model. A missing one is no error."""
        aside = f"{self._layout.staging}/tree-{secrets.token_hex(8)}"
        with self._building, store_faults("remove the tree", directory):
            try:
                gone = self._put_aside(directory, aside)
            except (FileNotFoundError, NotADirectoryError):
                return []
            for tree in [
                known for known in self._found_whole if known == directory or known.startswith(f"{directory}/")
            ]:
                del self._found_whole[tree]
            return self._noted(_discard(gone))

    def _put_aside(self, directory: str, aside: str) -> str:
        """Takes the name away in one step; returns where the directory is now. A directory in the lower layer of an
        overlay cannot be renamed: it stays where it is."""
        try:
            os.rename(directory, aside)
        except OSError as fault:
            if fault.errno != errno.EXDEV:
                raise
            return directory
        return aside

    def note(self, change: Relinked) -> None:
        """Notes that the store has changed the links of a blob other than by a tree."""
        with self._building:
            self._noted([change])

    def only_relinked(self, before: Signature, now: Signature) -> bool:
        """Whether nothing has changed a blob since it had the signature `before` but the links of trees."""
        passed: set[Signature] = set()
        with self._building:
            # A clock that is coarse or was set back gives a signature that was there before.
            while not before.is_unchanged(now) and before in self._relinked and before not in passed:
                passed.add(before)
                before = self._relinked[before]
        return before.is_unchanged(now)

    # -- looking

    def _whole(self, tree: str, files: Sequence[File]) -> bool:
        """Whether each name is there and leads to its blob, and nothing else is there."""
        started = time.time_ns()
        expected = {file.path: self._blobs.blob(Digest.parse(file.blob)) for file in files}
        directories: list[tuple[str, Times]] = []
        all_settled = True
        try:
            for directory, found in _walk(tree):
                info = os.lstat(directory)
                directories.append((directory, times_of(info)))
                all_settled = all_settled and settled(info, started)
                for name in found:
                    path = f"{directory}/{name}"
                    if not _leads_to(path, expected.pop(path[len(tree) + 1 :], None)):
                        return False
        except OSError:
            return False
        if expected:
            return False
        if all_settled:  # else it may change once more under the same times
            blobs = frozenset(Digest.parse(file.blob) for file in files)
            self._found_whole[tree] = _FoundWhole(tuple(directories), blobs)
        return True

    # -- making

    def _make(self, tree: str, files: Sequence[File]) -> list[Relinked]:
        fresh = f"{self._layout.staging}/tree-{secrets.token_hex(8)}"
        relinked: list[Relinked] = []
        try:
            make_directories(self._layout.staging, below=self._layout.root)
            self._make_directory(fresh)
            for directory in sorted({os.path.dirname(file.path) for file in files}):
                self._make_inner(fresh, directory)
            for file in files:
                relinked += self._link(Digest.parse(file.blob), f"{fresh}/{file.path}", f"{tree}/{file.path}")
            parent = os.path.dirname(tree)
            if os.path.islink(parent):
                os.unlink(parent)
            for directory in (os.path.dirname(self.top), self.top, parent):
                self._make_directory(directory)
            aside = f"{self._layout.staging}/tree-{secrets.token_hex(8)}"
            with contextlib.suppress(FileNotFoundError):
                relinked += _discard(self._put_aside(tree, aside))
            os.rename(fresh, tree)
        except BaseException:
            with contextlib.suppress(OSError):
                relinked += _discard(fresh)
            self._noted(relinked)
            raise
        return self._noted(relinked)

    def _noted(self, relinked: list[Relinked]) -> list[Relinked]:
        self._relinked.update(
            (change.before, change.after) for change in relinked if change.before.only_links_changed(change.after)
        )
        while len(self._relinked) > _REMEMBERED:
            del self._relinked[next(iter(self._relinked))]
        return relinked

    def _make_directory(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            make_directory(path)

    def _make_inner(self, tree: str, directory: str) -> None:
        path = tree
        for component in directory.split("/") if directory else ():
            path = f"{path}/{component}"
            self._make_directory(path)

    def _link(self, digest: Digest, path: str, final: str) -> list[Relinked]:
        blob = self._blobs.blob(digest)
        if self._at_site:
            os.symlink(blob, path)  # an absolute one: what lies between two roots may be symbolic links itself
            return []
        before = Signature.of(os.lstat(blob))
        if not links.link_or_symlink(blob, path, hard=digest not in self.linked, final=final):
            return []
        return [Relinked(before, Signature.of(os.lstat(blob)))]


def _discard(tree: str) -> list[Relinked]:
    """Removes the tree file by file; returns the signatures of each blob that loses a link."""
    relinked: list[Relinked] = []
    if not stat.S_ISDIR(os.lstat(tree).st_mode):
        os.unlink(tree)
        return []
    for directory, names in _walk(tree) if hasattr(os, "O_PATH") else ():
        for name in names:
            path = f"{directory}/{name}"
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                before = Signature.of(os.fstat(descriptor))
                os.unlink(path)
                relinked.append(Relinked(before, Signature.of(os.fstat(descriptor))))
            finally:
                os.close(descriptor)
    shutil.rmtree(tree)
    return relinked


def there(top: str) -> dict[str, list[str]]:
    """Blocking: by the stem of a model's name, the trees that its directory has, of all below the top. Follows no link;
    what is no directory has no trees."""
    found: dict[str, list[str]] = {}
    with (
        store_faults("read", top),
        contextlib.suppress(FileNotFoundError),
        os.scandir(top) as entries,
    ):
        for model in entries:
            found[model.name] = []
            if model.is_dir(follow_symlinks=False):
                with os.scandir(model.path) as trees:
                    found[model.name] = [tree.path for tree in trees]
    return found


def _walk(tree: str) -> Iterable[tuple[str, list[str]]]:
    """Each directory with the names in it that are no directories."""
    pending = [tree]
    if not stat.S_ISDIR(os.lstat(tree).st_mode):
        raise NotADirectoryError(tree)
    while pending:
        directory = pending.pop()
        with os.scandir(directory) as entries:
            names = []
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    names.append(entry.name)
        yield directory, names


def _leads_to(path: str, blob: str | None) -> bool:
    if blob is None:
        return False
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path))) == blob
    target = os.lstat(blob)
    return (status.st_dev, status.st_ino) == (target.st_dev, target.st_ino)
