"""The files that a statement lists. The name of a resource is a path, or `path:start:end` for one of a file's shards.

model-signing calls a model that is one file `.`, whatever the name of the file is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final, NamedTuple

import msgspec

from modeld.signatures.faults import InvalidSignature, Unverifiable

DIGEST_BYTES: Final = {"sha256": 32, "blake2b": 64, "blake3": 32}

ONE_FILE: Final = "."

MAX_PATH: Final = 4_095
"""Bytes: Linux opens no longer one."""

_SHARD: Final = re.compile(r"(.+):(0|[1-9][0-9]{0,18}):([1-9][0-9]{0,18})", re.ASCII | re.DOTALL)
_HEX: Final = re.compile(r"[0-9a-f]+", re.ASCII)


class Resource(msgspec.Struct, frozen=True):
    name: str
    algorithm: str
    digest: str


class SignedFile(NamedTuple):
    size: int | None
    """None when the signature does not say it."""

    digests: tuple[str, ...]
    """One, or one of each shard."""


class _Part(NamedTuple):
    """In the order in which model-signing writes them: by the components of the path."""

    components: tuple[str, ...]
    start: int
    end: int
    digest: str


def signed_files(resources: Sequence[Resource], hash_type: str, shard_size: int | None) -> dict[str, SignedFile]:
    """By path. Raises Unverifiable, or InvalidSignature when shards contradict each other."""
    if hash_type not in DIGEST_BYTES:
        raise Unverifiable("hash_type", f"files are signed by their {hash_type[:200]!r}, which is no known hash")
    if not resources:
        raise Unverifiable("resources", "the signature lists no file")
    algorithm = hash_type if shard_size is None else f"{hash_type}-sharded-{shard_size}"
    parts = [_part(resource, algorithm, DIGEST_BYTES[hash_type], shard_size) for resource in resources]
    names = [resource.name for resource in resources]
    if len(set(names)) < len(names):
        raise Unverifiable("resources", "the signature lists a file twice")
    # The specification orders by the text of the name, in which `a-b` comes before `a/b`.
    if parts != (ordered := sorted(parts)) and names != sorted(names):
        raise Unverifiable("resources", "the signature does not list the files in order")
    shards: dict[str, list[_Part]] = {}
    for part in ordered:
        shards.setdefault("/".join(part.components) or ONE_FILE, []).append(part)
    if ONE_FILE in shards and len(shards) > 1:
        raise Unverifiable("resources", f"the signature lists {ONE_FILE!r}, which is a whole model, beside files")
    return {path: _signed_file(path, parts, shard_size) for path, parts in shards.items()}


def _part(resource: Resource, algorithm: str, digest_bytes: int, shard_size: int | None) -> _Part:
    if resource.algorithm != algorithm:
        raise Unverifiable("resources", f"{resource.name[:200]!a} has a {resource.algorithm[:80]!r}, not a {algorithm}")
    if len(resource.digest) != 2 * digest_bytes or not _HEX.fullmatch(resource.digest):
        raise Unverifiable("resources", f"{resource.name[:200]!a} has no digest of {digest_bytes} bytes in lowercase")
    path, start, end = resource.name, 0, 0
    if shard_size is not None:
        found = _SHARD.fullmatch(resource.name)
        if found is None:
            raise Unverifiable("resources", f"{resource.name[:200]!a} is not written as path:start:end")
        path, start, end = found[1], int(found[2]), int(found[3])
    if (reason := _path_fault(path)) is not None:
        raise Unverifiable("resources", f"{path[:200]!a} cannot be a file of a model: {reason}")
    return _Part(PurePosixPath(path).parts, start, end, resource.digest)


def _path_fault(path: str) -> str | None:
    if path == ONE_FILE:
        return None
    if len(path.encode()) > MAX_PATH or "\0" in path:
        return f"it has a zero byte, or more than {MAX_PATH} bytes"
    if any(component in ("", ".", "..") for component in path.split("/")):
        return "it is absolute, leads out of the model, or has needless components"
    return None


def _signed_file(path: str, parts: list[_Part], shard_size: int | None) -> SignedFile:
    digests = tuple(part.digest for part in parts)
    if shard_size is None:
        return SignedFile(None, digests)
    last = len(parts) - 1
    for number, part in enumerate(parts):
        start, longest = number * shard_size, (number + 1) * shard_size
        if part.start != start or not start < part.end <= longest or (number < last and part.end < longest):
            raise InvalidSignature(
                "resources", f"the signature contradicts itself: the shards of {path[:200]!r} leave gaps or overlap"
            )
    return SignedFile(parts[-1].end, digests)


def ignored_paths(paths: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """By components, as model-signing takes them: one that is absolute or leads out of the model leaves nothing out."""
    ignored = frozenset(PurePosixPath(path).parts for path in paths)
    if () in ignored:
        raise Unverifiable("ignore_paths", "the signature leaves out the whole model")
    return ignored
