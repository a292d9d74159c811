"""What a signature signs: an in-toto statement, version 1, that lists the files of a model with their digests.

    {"_type", "subject": [{"name", "digest": {"sha256"}}], "predicateType",
     "predicate": {"resources": [{"name", "algorithm", "digest"}],
                   "serialization": {"method", "hash_type", "shard_size", "ignore_paths"}}}

All of it is signed, so it may have fields that are not known: the specification wants them to be ignored.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

import msgspec

from modeld.signatures.document import parse, shaped
from modeld.signatures.faults import InvalidSignature, Unverifiable
from modeld.signatures.resources import Resource, SignedFile, ignored_paths, signed_files

_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_FIRST_PREDICATE: Final = "https://model_signing/Digests/v0.1"
"""Of model-signing 0.2 alone, which signed another encoding too. Verifiers may read it."""

_WHAT: Final = "what is signed"

_Bytes = Annotated[float, msgspec.Meta(ge=1, le=2**53)]
"""model-signing writes all numbers as fractions, 128.0."""


class _Digests(msgspec.Struct, frozen=True):
    sha256: str


class _Subject(msgspec.Struct, frozen=True):
    digest: _Digests


class _Serialization(msgspec.Struct, frozen=True):
    method: str
    hash_type: str
    shard_size: _Bytes | None = None
    ignore_paths: tuple[str, ...] = ()


class _Predicate(msgspec.Struct, frozen=True):
    resources: tuple[Resource, ...]
    serialization: _Serialization


class _Kind(msgspec.Struct, frozen=True, rename={"kind": "_type", "predicate_type": "predicateType"}):
    kind: str
    predicate_type: str


class _Document(msgspec.Struct, frozen=True):
    subject: tuple[_Subject, ...]
    predicate: _Predicate


class Statement(msgspec.Struct, frozen=True):
    hash_type: str
    shard_size: int | None
    """Files are signed as shards of so many bytes, and whole when it is None."""

    files: dict[str, SignedFile]
    ignored: frozenset[tuple[str, ...]]
    """Components of paths that the signer left out, with all that is below them."""

    @property
    def by_record(self) -> bool:
        """Whether the files are known by their SHA-256, without reading them."""
        return self.hash_type == "sha256" and self.shard_size is None


def read_statement(payload: bytes) -> Statement:
    """Of a payload whose signature holds. Raises Unverifiable, or InvalidSignature when it contradicts itself."""
    parsed = parse(payload, _WHAT)
    _check_kind(shaped(parsed, _Kind, _WHAT))
    document = shaped(parsed, _Document, _WHAT)
    serialization, resources = document.predicate.serialization, document.predicate.resources
    shard_size = _shard_size(serialization)
    files = signed_files(resources, serialization.hash_type, shard_size)
    if len(document.subject) != 1:
        raise Unverifiable("subject", f"{_WHAT} has {len(document.subject)} subjects, and must have one")
    digests = b"".join(bytes.fromhex(resource.digest) for resource in resources)
    if hashlib.sha256(digests).hexdigest() != document.subject[0].digest.sha256:
        raise InvalidSignature("subject", f"{_WHAT} contradicts itself: its own digest is not that of its files")
    return Statement(serialization.hash_type, shard_size, files, ignored_paths(serialization.ignore_paths))


def _check_kind(document: _Kind) -> None:
    if document.kind != _STATEMENT:
        raise Unverifiable("statement_type", f"{_WHAT} is a {document.kind[:200]!r}, not a {_STATEMENT}")
    if document.predicate_type == _FIRST_PREDICATE:
        raise Unverifiable("predicate_type", f"{_WHAT} is a {_FIRST_PREDICATE}, which is no longer supported")
    if document.predicate_type != _PREDICATE:
        raise Unverifiable("predicate_type", f"{_WHAT} is a {document.predicate_type[:200]!r}, not a {_PREDICATE}")


def _shard_size(serialization: _Serialization) -> int | None:
    if serialization.method == "files":
        return None
    if serialization.method != "shards":
        raise Unverifiable("method", f"files are signed by the method {serialization.method[:200]!r}, not a known one")
    if serialization.shard_size is None or not serialization.shard_size.is_integer():
        raise Unverifiable("structure", f"{_WHAT} does not say how long its shards are")
    return int(serialization.shard_size)
