"""Collects the files of a path to add: one file, all parts of a set of shards, or a directory of files.

A directory is listed once, from descriptors, before the first byte is read; a file that cannot be in a model is refused
then, by its path. Hidden files and directories (`.git`, `.cache`, `.DS_Store`) belong to the tools that made the
directory and not to the model: they are skipped.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import Final

from modeld.store import parts
from modeld.store.digest import Signature
from modeld.store.disk.durable import source_faults
from modeld.store.disk.layout import Layout
from modeld.store.ingest.adopt import How
from modeld.store.ingest.readers import Reader, refuse_link_as_source
from modeld.store.ingest.staged import changed
from modeld.store.manifests.manifests import MAX_MANIFEST
from modelwire.errors import InvalidRequest, SourceNotFound

MAX_DEPTH: Final = 32
"""Directories within each other. Each takes a descriptor while it is listed."""

_ENTRY_BYTES: Final = 200
"""Of a manifest for one file, without its path."""

_KINDS = ((stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the future model."""

    path: str
    role: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class Collection:
    """The files of the future model, in the order of their paths. The caller closes it."""

    root: str
    descriptor: int | None
    """Of the directory; without one the files are opened by their own paths."""
    reader: Reader
    parts: tuple[Part, ...]
    alone: bool = False
    """One file that is a model by itself."""

    @property
    def size(self) -> int:
        return sum(part.signature.size for part in self.parts)

    def where(self, part: Part) -> str:
        return f"{self.root}/{part.path}"

    def open(self, part: Part) -> int:
        """A descriptor of the file that was listed. It follows no link."""
        if self.descriptor is None:
            return self.reader.open(self.where(part))
        directories = part.path.split("/")
        name = directories.pop()
        here, where = os.dup(self.descriptor), self.root
        try:
            for directory in directories:
                where = f"{where}/{directory}"
                inner = self.reader.enter(here, directory, where)
                os.close(here)
                here = inner
            return self.reader.open_in(here, name, self.where(part))
        finally:
            os.close(here)

    def check_complete(self) -> None:
        """SourceUnavailable when files came or went since the directory was listed."""
        if self.descriptor is None:
            return
        now = {path for path, _ in _Listing(self.root, self.reader, None).of(self.descriptor)}
        differing = now ^ {part.path for part in self.parts}
        if differing:
            raise changed(self.root, f"{min(differing)!r} came or went")

    def remove_empty_directories(self) -> None:
        """Removes the directories that are empty after their files were moved, the root last."""
        if self.descriptor is None:
            return
        inside = {os.path.dirname(part.path) for part in self.parts}
        while parents := {os.path.dirname(path) for path in inside} - inside:
            inside |= parents
        for below in sorted(inside - {""}, key=lambda path: -path.count("/")):
            self.reader.remove_empty(f"{self.root}/{below}")
        self.reader.remove_empty(self.root)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


def collect(path: str, how: How, reader: Reader, layout: Layout) -> Collection:
    """Lists the files of a path. Blocking."""
    if how != "copy":
        _refuse_in_store(path, layout)
    collection = _collect(path, reader, layout) or _single(path, reader)
    if how == "move":
        try:
            for part in collection.parts:
                refuse_link_as_source(collection.where(part))
                reader.check_removable(collection.where(part))
        except BaseException:
            collection.close()
            raise
    return collection


def _collect(path: str, reader: Reader, layout: Layout) -> Collection | None:
    path = path.rstrip("/") or "/"
    descriptor = reader.open_directory(path)
    if descriptor is None:
        return _collect_shards(path, reader)
    try:
        with source_faults(layout.root):
            store = os.stat(layout.root)
        inside = os.path.realpath(path) + "/"
        if inside.startswith(os.path.realpath(layout.root) + "/"):
            raise _holds_the_store(path, layout)
        found = list(_Listing(path, reader, (store.st_dev, store.st_ino)).of(descriptor))
        if not found:
            raise InvalidRequest(
                f"{path} has no files in it",
                hint="Hidden files do not count. Add the directory that the weights are in.",
                details={"path": path},
            )
        _check_paths(path, [name for name, _ in found])
        return _collection(path, descriptor, reader, found)
    except BaseException:
        os.close(descriptor)
        raise


def _single(path: str, reader: Reader) -> Collection:
    """One file by itself."""
    directory, name = os.path.split(path)
    part = Part(name, parts.role_of(name), _look(path, reader))
    return Collection(directory.rstrip("/"), None, reader, (part,), alone=True)


def _refuse_in_store(path: str, layout: Layout) -> None:
    """Refuses the store's own files: they must not be moved or linked."""
    if os.path.realpath(path).startswith(os.path.realpath(layout.root) + "/"):
        raise InvalidRequest(
            f"{path} lies in the store itself, so it can be neither moved nor linked",
            hint="`modelctl cp` gives a model of the store a second name.",
            details={"path": path},
        )


def _collect_shards(path: str, reader: Reader) -> Collection | None:
    directory, filename = os.path.split(path)
    names = parts.gguf_shards(filename)
    if names is None:
        return None
    _check_paths(path, names)
    found: list[tuple[str, Signature]] = []
    for name in names:
        try:
            found.append((name, _look(f"{directory}/{name}", reader)))
        except SourceNotFound:
            raise _missing(directory, name, filename) from None
    return _collection(directory.rstrip("/"), None, reader, found)


def _look(path: str, reader: Reader) -> Signature:
    descriptor = reader.open(path)
    try:
        with source_faults(path):
            return Signature.of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _collection(root: str, descriptor: int | None, reader: Reader, found: list[tuple[str, Signature]]) -> Collection:
    made = tuple(Part(path, parts.role_of(path), signature) for path, signature in sorted(found))
    return Collection(root.rstrip("/"), descriptor, reader, made)


def _check_paths(where: str, paths: list[str]) -> None:
    reason = parts.paths_fault(paths)
    if reason is not None:
        raise InvalidRequest(f"{where} cannot be added: {reason}", hint="Rename it.", details={"path": where})
    missing = parts.missing_shard(paths)
    if missing is not None:
        raise _missing(where, *missing)
    if len(paths) > parts.MAX_FILES or sum(len(json.dumps(path)) + _ENTRY_BYTES for path in paths) > MAX_MANIFEST:
        raise _too_many(where)


class _Listing:
    """Walks down from a descriptor. The recursion is bounded by MAX_DEPTH."""

    def __init__(self, root: str, reader: Reader, store: tuple[int, int] | None) -> None:
        self._root = root
        self._reader = reader
        self._store = store
        self._found: list[tuple[str, Signature]] = []

    def of(self, descriptor: int) -> list[tuple[str, Signature]]:
        self._walk(descriptor, "", 1)
        return self._found

    def _walk(self, descriptor: int, prefix: str, depth: int) -> None:
        with source_faults(f"{self._root}/{prefix}"):
            with os.scandir(descriptor) as entries:
                listed = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries if entry.name[0] != "."]
        for name, status in sorted(listed):
            path = f"{prefix}{name}"
            if stat.S_ISDIR(status.st_mode):
                self._enter(descriptor, name, path, status, depth)
            elif stat.S_ISREG(status.st_mode):
                self._found.append((path, Signature.of(status)))
                if len(self._found) > parts.MAX_FILES:
                    raise _too_many(self._root)
            else:
                raise _refused(f"{self._root}/{path}", status.st_mode)

    def _enter(self, parent: int, name: str, path: str, status: os.stat_result, depth: int) -> None:
        where = f"{self._root}/{path}"
        if (status.st_dev, status.st_ino) == self._store:
            raise InvalidRequest(
                f"{self._root} cannot be added: the store itself lies in it",
                hint="Add the directory that the weights are in, not one above it.",
                details={"path": where},
            )
        if depth == MAX_DEPTH:
            raise InvalidRequest(
                f"{where} is more than {MAX_DEPTH} directories deep",
                hint="Add the directory that the weights are in, not one above it.",
                details={"path": where},
            )
        inner = self._reader.enter(parent, name, where)
        try:
            self._walk(inner, f"{path}/", depth + 1)
        finally:
            os.close(inner)


def _refused(where: str, mode: int) -> InvalidRequest:
    kind = next((kind for test, kind in _KINDS if test(mode)), "a device")
    return InvalidRequest(
        f"{where} is {kind}: a model has regular files only",
        hint="`cp -rL` makes a copy of a directory with its links resolved."
        if stat.S_ISLNK(mode)
        else "Take it out of the directory: it cannot be stored.",
        details={"path": where},
    )


def _missing(where: str, name: str, present: str) -> SourceNotFound:
    return SourceNotFound(
        f"{where}/{name} is not there: {os.path.basename(present)} is one part of a set, and the set is not complete",
        hint="Get the missing part; the set is added by any one of its parts, or by its directory.",
        details={"path": f"{where}/{name}"},
    )


def _holds_the_store(path: str, layout: Layout) -> InvalidRequest:
    return InvalidRequest(
        f"{path} cannot be added: it lies in the store {layout.root} itself",
        hint="`modelctl list` shows what is in the store; `modelctl cp` gives a model a second name.",
        details={"path": path},
    )


def _too_many(where: str) -> InvalidRequest:
    return InvalidRequest(
        f"{where} has too many files for one model: {parts.MAX_FILES} in {MAX_MANIFEST} bytes of manifest are allowed",
        hint="Add the directory that the weights are in, not one above it.",
        details={"path": where},
    )
