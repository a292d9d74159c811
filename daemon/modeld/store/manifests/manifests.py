"""Manifests: the small public files that give blobs their names.

Other tools write them too, so reading takes what version 1 allows and treats the rest as hostile bytes: bounded, no
links, no special files. Writing keeps every unknown field. The manifest is the last write of a publication: once it has
its name, the model exists.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final, NoReturn

import msgspec

from modeld.store import parts
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.names import ModelName
from modelwire.errors import AlreadyExists, Corrupt, InvalidDigest, Unsupported, WireError
from modelwire.limits import MIB
from modelwire.values import ModelFile
from modelwire.version import __version__

SCHEMA_VERSION: Final = 1

MAX_MANIFEST: Final = 1 * MIB
"""A model of 2,000 files takes about 400 KiB; a manifest beyond this is a mistake or an attack."""

_FILE_BYTES: Final = 200
"""Of a manifest for one file, without its path."""

PRODUCER: Final = f"modeld/{__version__}"

_FIELDS: Final = (
    "schema_version",
    "name",
    "format",
    "blob",
    "size_bytes",
    "license",
    "source",
    "produced_by",
    "produced_at",
)
"""Version 1, in the order in which they are written."""

_ABOUT_THE_BYTES: Final = frozenset({"files", "model"})
"""Optional fields that describe the content: they are dropped when the name gets other bytes."""

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
        """Equal for manifests of the same files: a digest of their blobs and paths."""
        files = sorted((file.path, file.blob) for file in self.files)
        return hashlib.sha256(msgspec.json.encode((self.blob, files))).hexdigest()

    def is_of(self, blob: str, files: Iterable[File | ModelFile]) -> bool:
        """Whether this is a model of exactly these files. Roles do not count: they are guessed from the names."""
        return self.digest.text == blob and {(file.path, file.blob) for file in self.files} == {
            (file.path, file.blob) for file in files
        }


class _Version(msgspec.Struct):
    schema_version: int


_decode_version = msgspec.json.Decoder(_Version).decode
_decode_manifest = msgspec.json.Decoder(Manifest).decode


# -- reading


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


# -- writing


def compose(
    name: ModelName,
    *,
    digest: Digest,
    size: int,
    format: str,  # noqa: A002 - the field's name
    license: str | None,  # noqa: A002 - the field's name
    source: Mapping[str, str],
    files: Sequence[File] = (),
    owner: int | None = None,
    now: datetime | None = None,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document to write. Fields of `before` that modeld does not know are kept, also those inside `source`. Without
    an `owner` the owner of `before` stays."""
    old: Mapping[str, Any] = {} if before is None else before
    old_source = old.get("source")
    kept_source = dict(old_source) if isinstance(old_source, Mapping) else {}
    known: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": name.text,
        "format": format,
        "blob": digest.text,
        "size_bytes": size,
        "license": license,
        "source": {**dict.fromkeys(("registry", "repo", "revision", "filename"), ""), **source},
        "produced_by": PRODUCER,
        "produced_at": (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if files:
        known["files"] = [
            {"path": file.path, "blob": file.blob, "size_bytes": file.size_bytes, "role": file.role} for file in files
        ]
    if owner is not None:
        known["owner_uid"] = owner
    # The reference is of the bytes that a pull wrote there.
    for field in (*known["source"], "reference"):
        kept_source.pop(field, None)
    known["source"].update(kept_source)
    same = old.get("blob") == digest.text and (old.get("files") or []) == known.get("files", [])
    stale = frozenset[str]() if same else _ABOUT_THE_BYTES
    known.update({key: value for key, value in old.items() if key not in known and key not in stale})
    return known


def named_in(document: Mapping[str, Any]) -> set[Digest]:
    """The blobs of a document that `compose` made."""
    return {Digest.parse(text) for text in (document["blob"], *(file["blob"] for file in document.get("files") or ()))}


def encode(document: Mapping[str, Any], *, indent: int | None = 2) -> bytes:
    """Indented UTF-8 with a final newline."""
    separators = (",", ":") if indent is None else None
    encode_as = partial(json.dumps, document, indent=indent, separators=separators, allow_nan=False)
    try:
        return encode_as(ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # another tool's escaped half of a surrogate pair: keep it escaped
        return encode_as().encode() + b"\n"


def bytes_of_files(paths: Iterable[str]) -> int:
    """About how much of a manifest the files of these paths take."""
    return sum(len(json.dumps(path)) + _FILE_BYTES for path in paths)


def _readable(document: Mapping[str, Any]) -> bytes:
    """The manifest file; without spaces where they would make it longer than is read again."""
    data = encode(document)
    if len(data) > MAX_MANIFEST:
        data = encode(document, indent=None)
    if len(data) > MAX_MANIFEST:
        raise Unsupported(
            f"the manifest would have {len(data)} bytes, {MAX_MANIFEST} are allowed; nothing was changed",
            hint="Take out fields that another tool has added to it.",
        )
    return data


def write(layout: Layout, name: ModelName, document: Mapping[str, Any], *, replace: bool) -> None:
    """Publishes the manifest. `AlreadyExists` when the name is taken and `replace` is false; then nothing has changed.

    An error after the naming leaves the manifest there: the outcome is unknown to the caller, and the same request
    again succeeds.
    """
    path = layout.manifest(name)
    with durable.store_faults("write the manifest", path):
        staged = _stage(layout, _readable(document))
        try:
            if replace:
                durable.name_replacing(staged, path)
            elif not durable.name_without_replacing(staged, path):
                raise taken(name)
        except BaseException:
            with contextlib.suppress(OSError):
                durable.remove(staged)
            raise
    # ---- The model has its name: from here on nothing is undone. ----
    with durable.outcome_unknown(), durable.store_faults("write the manifest", path):
        durable.sync_directory(layout.manifests_dir)


def make_durable(layout: Layout, name: ModelName) -> bool:
    """Syncs a manifest that already is what a request wants: its writer may have died, or never syncs. Returns False
    when it does not exist any more."""
    path = layout.manifest(name)
    with durable.outcome_unknown(), durable.store_faults("make durable", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            durable.sync_file(descriptor)
        finally:
            durable.close(descriptor)
        durable.sync_directory(layout.manifests_dir)
    return True


def sync_names(layout: Layout) -> None:
    """Makes earlier changes of manifests durable, when that is unknown."""
    with durable.outcome_unknown(), durable.store_faults("sync", layout.manifests_dir):
        durable.sync_directory(layout.manifests_dir)


def taken(name: ModelName) -> AlreadyExists:
    return AlreadyExists(
        f"there is already a model named '{name.text}'",
        hint="Choose another name, or request that the model be replaced.",
        details={"name": name.text},
    )


def _stage(layout: Layout, data: bytes) -> str:
    staged = os.path.join(layout.staging, f"manifest-{secrets.token_hex(8)}.json")
    descriptor = durable.stage_file(staged, below=layout.root)
    try:
        try:
            durable.share_with_group_of(layout.manifests_dir, descriptor)
            os.fchmod(descriptor, _readers_mode(layout))
            durable.write_at(descriptor, memoryview(data), 0)
            durable.sync_file(descriptor)
        finally:
            durable.close(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            durable.remove(staged)
        raise
    return staged


def _readers_mode(layout: Layout) -> int:
    """In a store that a group shares, the group reads; else every user with access to the directories."""
    return 0o640 if os.stat(layout.manifests_dir).st_mode & stat.S_ISGID else 0o644
