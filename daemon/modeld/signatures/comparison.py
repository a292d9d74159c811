"""The files of a model, compared with those that were signed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final, NamedTuple

import msgspec

from modeld.signatures.faults import FilesDiffer, MissingPackage
from modeld.signatures.resources import ONE_FILE, SignedFile
from modeld.signatures.statement import Statement
from modeld.signatures.verification import SignedModel

_NEVER_SIGNED: Final = frozenset({(".git",), (".gitignore",), (".gitattributes",), (".github",)})
"""At the top of a model, unless the signature lists them: they are git's, and differ from copy to copy."""


class ModelFile(NamedTuple):
    path: str
    size: int
    sha256: str


ChunksOf = Callable[[str], Iterable[bytes | memoryview]]
"""Reads the file of a path from front to back, in chunks of any size. What it raises passes through."""


class Comparison(msgspec.Struct, frozen=True):
    verified: tuple[str, ...]
    not_signed: tuple[str, ...]
    """Files of the model for which the signature does not speak: git's, the signature itself, those that the signer
    left out, and empty ones when it signs shards."""


def compare(
    signed: SignedModel,
    files: Iterable[ModelFile],
    chunks_of: ChunksOf,
    signature_path: str | None,
    *,
    some: bool = False,
) -> Comparison:
    """Raises FilesDiffer, or MissingPackage when the hash is not available.

    Reads no file that the signature has by its SHA-256. `signature_path` is where the model has the signature itself.
    With `some` the files may be fewer than those that were signed.
    """
    statement = signed.statement
    present = {file.path: file for file in files}
    not_signed = {path for path, file in present.items() if _left_out(statement, file, signature_path)}
    expected = statement.files
    if set(expected) == {ONE_FILE} and len(alone := present.keys() - not_signed) == 1:
        expected = {alone.pop(): expected[ONE_FILE]}
    pairs = {path: (present[path], listed) for path, listed in expected.items() if path in present}
    missing = set[str]() if some else expected.keys() - present.keys()
    unsigned = present.keys() - expected.keys() - not_signed
    changed = {path for path, (file, listed) in pairs.items() if _cannot_match(statement, file, listed)}
    if not (statement.by_record or missing or unsigned or changed):
        changed = {
            path
            for path, (file, listed) in sorted(pairs.items())
            if tuple(_digests(statement, chunks_of(file.path))) != listed.digests
        }
    if missing or unsigned or changed:
        renamed = _renamed(statement, missing, [present[path] for path in sorted(unsigned)])
        raise FilesDiffer(
            changed=sorted(changed),
            renamed=renamed,
            missing=sorted(missing - {before for before, _after in renamed}),
            unsigned=sorted(unsigned - {after for _before, after in renamed}),
        )
    return Comparison(tuple(sorted(pairs)), tuple(sorted(present.keys() - pairs.keys())))


def _left_out(statement: Statement, file: ModelFile, signature_path: str | None) -> bool:
    if file.path in statement.files:
        return False
    components = PurePosixPath(file.path).parts
    above = {components[:depth] for depth in range(1, len(components) + 1)}
    return (
        file.path == signature_path
        or not above.isdisjoint(_NEVER_SIGNED | statement.ignored)
        # An empty file has no shard.
        or (statement.shard_size is not None and file.size == 0)
    )


def _cannot_match(statement: Statement, file: ModelFile, listed: SignedFile) -> bool:
    """Whether the record shows that the file is not the signed one."""
    if statement.by_record:
        return listed.digests != (file.sha256,)
    return listed.size not in (None, file.size)


def _digests(statement: Statement, chunks: Iterable[bytes | memoryview]) -> Iterator[str]:
    """Of the whole file, or of each of its shards."""
    longest = statement.shard_size or sys.maxsize
    hasher, room = _hasher(statement.hash_type), longest
    for chunk in chunks:
        left = memoryview(chunk)
        while len(left) > room:
            hasher.update(left[:room])
            yield hasher.hexdigest()
            left, hasher, room = left[room:], _hasher(statement.hash_type), longest
        hasher.update(left)
        room -= len(left)
    yield hasher.hexdigest()


def _hasher(name: str) -> hashlib._Hash:
    try:
        return hashlib.new(name)
    except ValueError:
        raise MissingPackage(
            name, f"the signature has the files by their {name}, which this Python cannot compute"
        ) from None


def _renamed(statement: Statement, missing: Iterable[str], unsigned: list[ModelFile]) -> list[tuple[str, str]]:
    """Pairs of a signed path and one that has its bytes, as far as the records show it."""
    if not statement.by_record:
        return []
    by_digest: dict[str, list[str]] = {}
    for file in unsigned:
        by_digest.setdefault(file.sha256, []).append(file.path)
    lists = ((path, by_digest.get(statement.files[path].digests[0])) for path in sorted(missing))
    return [(path, same.pop(0)) for path, same in lists if same]
