"""Collects the files of a path to add: one file, all parts of a set of shards, or a directory of files.

A directory is listed once, from descriptors, before the first byte is read; a file that cannot be in a model is refused
then, by its path. Hidden files and directories (`.git`, `.cache`, `.DS_Store`) belong to the tools that made the
directory and not to the model: they are skipped.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Final

from modeld.access.handed import HandedFiles
from modeld.platform import files
from modeld.store import parts
from modeld.store.digest import Signature
from modeld.store.disk.durable import source_faults
from modeld.store.disk.layout import Layout
from modeld.store.ingest.adopt import How
from modeld.store.ingest.readers import HandedReader, Reader, kind_of
from modeld.store.ingest.staged import changed
from modeld.store.manifests.manifests import MAX_MANIFEST
from modeld.store.manifests.writing import bytes_of_files
from modelwire.errors import InvalidRequest, SourceNotFound

MAX_DEPTH: Final = 32
"""Directories within each other. Each takes a descriptor while it is listed."""

_NOT_ABOVE: Final = "Add the directory that the weights are in, not one above it."


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the future model."""

    path: str
    role: str
    signature: Signature
    real_path: str | None = None
    """Of a file that the daemon has opened by its own path: without symbolic links, as it was opened."""


@dataclass(frozen=True, slots=True)
class Collection:
    """The files of the future model, in the order of their paths. The caller closes it."""

    root: str
    descriptor: int | None
    """Of the directory; without one the files are opened by their own paths."""
    reader: Reader
    how: How
    parts: tuple[Part, ...]
    directory: bool
    """Whether they are the files of a directory."""

    @property
    def alone(self) -> bool:
        """One file that is a model by itself."""
        return not self.directory and len(self.parts) == 1

    def where(self, part: Part) -> str:
        return f"{self.root}/{part.path}"

    def open(self, part: Part) -> int:
        """A descriptor of the file that was listed. In an added directory it follows no link."""
        if self.descriptor is None:
            return self.reader.open(self.where(part))
        here, where = os.dup(self.descriptor), self.root
        try:
            for name in part.path.split("/")[:-1]:
                where = f"{where}/{name}"
                inner = self.reader.enter(where, here)
                os.close(here)
                here = inner
            return self.reader.open(self.where(part), here)
        finally:
            os.close(here)

    def check_complete(self) -> None:
        """SourceUnavailable when files came or went since the directory was listed."""
        if self.descriptor is None:
            return
        now = {path for path, _ in _listed(self.root, self.reader, self.descriptor)}
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
    """Lists the files of a path, or takes those that were handed over for it. Blocking."""
    if isinstance(reader, HandedReader):
        return _handed(path, reader)
    descriptor = reader.open_directory(path)
    try:
        # A file of the store can be copied into it again.
        if descriptor is not None or how != "copy":
            _refuse_in_store(path, layout)
        if descriptor is None:
            root, filename = os.path.split(path)
            made = _with_shards(root, filename, reader)
        else:
            root = path.rstrip("/") or "/"
            made = _in_directory(root, descriptor, reader, layout)
        collection = Collection(root.rstrip("/"), descriptor, reader, how, made, descriptor is not None)
        if how == "move":
            for part in made:
                reader.check_removable(collection.where(part))
        return collection
    except BaseException:
        if descriptor is not None:
            os.close(descriptor)
        raise


def handed_reader(path: str, handed: HandedFiles) -> HandedReader:
    """A reader of the files that were handed over for this path."""
    return HandedReader((path if handed.directory else os.path.dirname(path)).rstrip("/"), handed)


def _handed(path: str, reader: HandedReader) -> Collection:
    """Files that are open already: a client has listed them, and its word is checked as a directory's is."""
    handed = reader.handed
    names = sorted(handed.paths)
    _check_paths(path, names)
    if not handed.directory and names != (parts.gguf_shards(names[0]) or names[:1]):
        raise InvalidRequest(
            f"{path} cannot be added: {len(names)} files were handed over for it, which are no set of shards",
            hint="Offer the files of a directory with `directory`, and a file by itself.",
            details={"path": path},
        )
    found = []
    for name in names:
        where = reader.where(name)
        with files.closing(reader.open(where)) as descriptor, source_faults(where):
            found.append(Part(name, parts.role_of(name), Signature.of(os.fstat(descriptor))))
    return Collection(reader.root, None, reader, "copy", tuple(found), handed.directory)


def _refuse_in_store(path: str, layout: Layout) -> None:
    """Refuses the store's own files: they must not be moved or linked, and its directories are no models."""
    if f"{os.path.realpath(path)}/".startswith(f"{os.path.realpath(layout.root)}/"):
        raise InvalidRequest(
            f"{path} cannot be added: it lies in the store itself",
            hint="`modelctl list` shows what is in the store; `modelctl cp` gives a model a second name.",
            details={"path": path},
        )


def _with_shards(directory: str, filename: str, reader: Reader) -> tuple[Part, ...]:
    """The file, and all other parts of its set when it is a shard."""
    names = parts.gguf_shards(filename)
    if names is not None:
        _check_paths(f"{directory}/{filename}", names)
    found: list[Part] = []
    for name in sorted(names or [filename]):
        path = os.path.join(directory, name)
        try:
            with files.closing(reader.open(path)) as descriptor, source_faults(path):
                signature, real = Signature.of(os.fstat(descriptor)), files.path_of(descriptor, path)
                found.append(Part(name, parts.role_of(name), signature, real))
        except SourceNotFound:
            if names is None:
                raise
            raise _missing(directory, name, filename) from None
    return tuple(found)


def _in_directory(path: str, descriptor: int, reader: Reader, layout: Layout) -> tuple[Part, ...]:
    with source_faults(layout.root):
        store = os.stat(layout.root)
    found = _listed(path, reader, descriptor, store=(store.st_dev, store.st_ino))
    if not found:
        raise InvalidRequest(
            f"{path} has no files in it",
            hint="Hidden files do not count. Add the directory that the weights are in.",
            details={"path": path},
        )
    _check_paths(path, [name for name, _ in found])
    return tuple(Part(name, parts.role_of(name), signature) for name, signature in sorted(found))


def _check_paths(where: str, paths: list[str]) -> None:
    if len(paths) > parts.MAX_FILES or bytes_of_files(paths) > MAX_MANIFEST:
        allowed = f"{parts.MAX_FILES} in {MAX_MANIFEST} bytes of manifest are allowed"
        raise InvalidRequest(
            f"{where} has too many files for one model: {allowed}", hint=_NOT_ABOVE, details={"path": where}
        )
    reason = parts.paths_fault(paths)
    if reason is not None:
        raise InvalidRequest(f"{where} cannot be added: {reason}", hint="Rename it.", details={"path": where})
    missing = parts.missing_shard(paths)
    if missing is not None:
        raise _missing(where, *missing)


def _missing(where: str, name: str, present: str) -> SourceNotFound:
    return SourceNotFound(
        f"{where}/{name} is not there: {os.path.basename(present)} is one part of a set, and the set is not complete",
        hint="Get the missing part; the set is added by any one of its parts, or by its directory.",
        details={"path": f"{where}/{name}"},
    )


def _listed(
    root: str, reader: Reader, descriptor: int, *, store: tuple[int, int] | None = None
) -> list[tuple[str, Signature]]:
    """The files of a directory, or one more than a model may have. A directory `store` is refused."""
    return list(islice(_walk(root, reader, descriptor, store, "", count(1)), parts.MAX_FILES + 1))


def _walk(
    root: str, reader: Reader, descriptor: int, store: tuple[int, int] | None, prefix: str, numbers: Iterator[int]
) -> Iterator[tuple[str, Signature]]:
    """Walks down from a descriptor. The recursion is bounded by MAX_DEPTH, what it keeps by MAX_ENTRIES."""
    with source_faults(f"{root}/{prefix}"), os.scandir(descriptor) as entries:
        listed = [(entry.name, entry.stat(follow_symlinks=False)) for entry in _numbered(root, entries, numbers)]
    for name, status in sorted(listed):
        where = f"{root}/{prefix}{name}"
        if stat.S_ISREG(status.st_mode):
            yield f"{prefix}{name}", Signature.of(status)
        elif stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) == store:
                what = f"{root} cannot be added: the store itself lies in it"
                raise InvalidRequest(what, hint=_NOT_ABOVE, details={"path": where})
            if prefix.count("/") + 1 == MAX_DEPTH:
                what = f"{where} is more than {MAX_DEPTH} directories deep"
                raise InvalidRequest(what, hint=_NOT_ABOVE, details={"path": where})
            with files.closing(reader.enter(where, descriptor)) as inner:
                yield from _walk(root, reader, inner, store, f"{prefix}{name}/", numbers)
        else:
            raise InvalidRequest(
                f"{where} is {kind_of(status.st_mode)}: a model has regular files only",
                hint="`cp -rL` makes a copy of a directory with its links resolved."
                if stat.S_ISLNK(status.st_mode)
                else "Take it out of the directory: it cannot be stored.",
                details={"path": where},
            )


def _numbered(root: str, entries: Iterable[os.DirEntry[str]], numbers: Iterator[int]) -> Iterator[os.DirEntry[str]]:
    """Those that are not hidden. The hidden ones count too: each takes as long to pass over."""
    for entry in entries:
        if next(numbers) > parts.MAX_ENTRIES:
            raise InvalidRequest(
                f"{root} has more than {parts.MAX_ENTRIES} entries, hidden ones included, too many for a model of at"
                f" most {parts.MAX_FILES} files",
                hint=_NOT_ABOVE,
                details={"path": root},
            )
        if entry.name[0] != ".":
            yield entry
