"""Manifests: the small public files that give blobs their names.

Other tools write them too, so reading takes what version 1 allows and treats the rest as hostile bytes: bounded, no
links, no special files. `writing` has the other half.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, NoReturn

import msgspec

from modeld.store import parts
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.names import ModelName, ids_in
from modelwire.errors import Corrupt, InvalidDigest, Unsupported, WireError
from modelwire.limits import MIB
from modelwire.values import ModelFile

SCHEMA_VERSION: Final = 1

MAX_MANIFEST: Final = 1 * MIB
"""A model of 2,000 files takes about 400 KiB; a manifest beyond this is a mistake or an attack."""

_NO_USER: Final = 2**32 - 1
"""(uid_t) -1."""

Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Source(msgspec.Struct, frozen=True, gc=False):
    """Where the bytes came from. Other tools write null for what they do not know."""

    registry: str | None = ""
    repo: str | None = ""
    revision: str | None = ""
    filename: str | None = ""


class File(msgspec.Struct, frozen=True, gc=False):
    """One file of a model of several."""

    path: str
    blob: str
    size_bytes: Size
    role: str | None = None


class Manifest(msgspec.Struct, frozen=True):
    """The fields of a version-1 file. `name` is from the file name, which is the name that resolves."""

    schema_version: int
    blob: str
    size_bytes: Size
    name: str = ""
    format: str = "unknown"
    license: str | None = None
    source: Source | None = None
    produced_by: str | None = None
    produced_at: str | None = None
    files: tuple[File, ...] = ()
    owner_uid: Any = None
    """As the file has it: another tool may write anything here."""

    pinned: Any = None
    """The same; a pin is true."""

    ids: Any = ()
    """The texts by which the model is known beside its name; `parse` leaves out what is none of them."""

    model: msgspec.Raw = msgspec.Raw()
    """The document that describes the model, as the file has it."""

    @property
    def owner(self) -> int | None:
        """The user who named the model; None when the manifest does not say."""
        known = type(self.owner_uid) is int and 0 <= self.owner_uid < _NO_USER
        return self.owner_uid if known else None

    @property
    def digest(self) -> Digest:
        return Digest.parse(self.blob)

    @property
    def total_bytes(self) -> int:
        """Of all files. `size_bytes` is that of `blob` alone: a reader of only the nine fields finds them true."""
        return sum(file.size_bytes for file in self.files) if self.files else self.size_bytes

    def blobs(self) -> dict[Digest, int]:
        """Each blob once, with its size: first that of the model, then the others in the order of `files`.

        A file's own size counts: another tool's `size_bytes` may be that of all files.
        """
        sizes = {self.digest: self.size_bytes}
        for file in self.files:
            sizes[Digest.parse(file.blob)] = file.size_bytes
        return sizes

    @property
    def listed(self) -> tuple[str, ...]:
        """The blob of each file, in the manifest's order."""
        return tuple(blob for blob, _ in self.listed_sizes)

    @property
    def listed_sizes(self) -> tuple[tuple[str, int], ...]:
        return tuple((file.blob, file.size_bytes) for file in self.files) or ((self.blob, self.size_bytes),)

    @property
    def content(self) -> str:
        """As `content_of`."""
        return content_of(self.blob, self.files)

    def is_of(self, blob: str, files: Iterable[File | ModelFile]) -> bool:
        """Whether this is a model of exactly these files. Roles do not count: they are guessed from the names."""
        return self.digest.text == blob and {(file.path, file.blob) for file in self.files} == {
            (file.path, file.blob) for file in files
        }


def content_of(blob: str, files: Iterable[File | ModelFile]) -> str:
    """Equal for manifests of the same files: a digest of their blobs and paths."""
    listed = sorted((file.path, file.blob) for file in files)
    return hashlib.sha256(msgspec.json.encode((blob, listed))).hexdigest()


class _Version(msgspec.Struct):
    schema_version: int


_decode_version = msgspec.json.Decoder(_Version).decode
_decode_manifest = msgspec.json.Decoder(Manifest).decode


def standing(layout: Layout, name: ModelName) -> str:
    """What the name stands for, in whichever spelling, else what it stands for with the default tag: a text to compare
    with a later one. Empty when there is no such model. Blocks."""
    try:
        for wanted in filter(None, (name, name.with_default_tag)):
            for spelling in _spellings(layout, wanted):
                with contextlib.suppress(FileNotFoundError):
                    return read(layout.manifest(spelling), spelling)[0].content
    except (WireError, OSError):
        return "unusable"
    return ""


def _spellings(layout: Layout, name: ModelName) -> Iterator[ModelName]:
    yield name
    for file in os.listdir(layout.manifests_dir):
        if file.isascii() and file.lower() == f"{name.stem.lower()}.json":
            yield ModelName.from_stem(file[:-5])


def read(path: str, name: ModelName) -> tuple[Manifest, os.stat_result]:
    """The manifest and the stat of exactly the file that it was read from.

    FileNotFoundError when it does not exist, `Corrupt` when it is damaged, `Unsupported` for another version.
    """
    data, info = _read_bytes(path)
    return parse(data, path, name), info


def parse(data: bytes, path: str, name: ModelName) -> Manifest:
    """`path` is for the message only."""
    try:
        manifest = _decode_manifest(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.MsgspecError, ValueError, RecursionError) as fault:
        _refuse_other_version(data, path)
        raise _damaged(path, str(fault)) from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise _other_version(path, manifest.schema_version)
    try:
        Digest.parse(manifest.blob)
        for file in manifest.files:
            Digest.parse(file.blob)
    except InvalidDigest as fault:
        raise _damaged(path, fault.message) from None
    if manifest.files and (reason := parts.paths_fault([file.path for file in manifest.files])) is not None:
        raise _damaged(path, reason)
    if manifest.name != name.text:
        manifest = msgspec.structs.replace(manifest, name=name.text)
    if manifest.ids != ():
        manifest = msgspec.structs.replace(manifest, ids=ids_in(manifest.ids))
    return manifest


def _read_bytes(path: str) -> tuple[bytes, os.stat_result]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        _explain_open(path, fault)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise _damaged(path, "it is not a regular file")
        if info.st_size > MAX_MANIFEST:
            raise _damaged(path, f"it has {info.st_size} bytes, {MAX_MANIFEST} are allowed")
        # The bound holds also for a file that grows while it is read.
        data = os.read(descriptor, MAX_MANIFEST + 1)
        while len(data) < info.st_size and (more := os.read(descriptor, MAX_MANIFEST + 1)):
            data += more
        if len(data) > MAX_MANIFEST:
            raise _damaged(path, f"it has more than the {MAX_MANIFEST} bytes that are allowed")
        return data, info
    finally:
        os.close(descriptor)


def _explain_open(path: str, fault: OSError) -> NoReturn:
    if fault.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
        raise _damaged(path, "it is not a regular file") from None
    if fault.errno in (errno.EACCES, errno.EPERM, errno.EIO):
        raise durable.store_fault(fault, "read", path) from fault
    raise fault


def _refuse_other_version(data: bytes, path: str) -> None:
    """A newer version may have any shape, so its number counts before its fields do."""
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
        version = _decode_version(data).schema_version
        if version != SCHEMA_VERSION:
            raise _other_version(path, version)


def _other_version(path: str, version: int) -> Unsupported:
    return Unsupported(
        f"{path} has schema version {version}; this modeld reads version {SCHEMA_VERSION}",
        hint="Use the tool that wrote it, or a newer modeld. The file is not changed.",
        details={"path": path, "found": version, "known": SCHEMA_VERSION},
    )


def _damaged(path: str, reason: str) -> Corrupt:
    return Corrupt(
        f"the manifest {path} is damaged: {reason}",
        hint="Repair the file, or remove it and add the model again. modeld does not change it.",
        details={"path": path, "reason": reason},
    )


def read_document(path: str) -> dict[str, Any]:
    """The file as it is, unknown fields included; `Corrupt` when it is no JSON object."""
    data, _ = _read_bytes(path)
    try:
        # The standard library keeps integers of any size, which a rewrite must not lose.
        document = json.loads(data.removeprefix(b"\xef\xbb\xbf"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as fault:
        raise _damaged(path, str(fault)) from None
    if not isinstance(document, dict):
        raise _damaged(path, "it is not a JSON object")
    return document


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
