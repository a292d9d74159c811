"""Which bytes of a partial are on stable storage, and which source gave them: append-only lines beside the bytes.

A line is written only after its bytes were synced, and carries a checksum of itself: a line that a crash has cut counts
as absent, and so does everything behind it. The journal saves work and proves nothing: each piece is compared with its
checksum before it is used, and the digest of the whole decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import xxhash

from modeld.download.partials.extents import Extents
from modeld.store.disk import durable

_MAX_BYTES: Final = 256 * 1024 * 1024
"""That of a download of 10 TiB: this program wrote no bigger one."""


class Header(msgspec.Struct, frozen=True, tag="modeld-journal-1", forbid_unknown_fields=True):
    """The file that is being fetched. None: not known yet."""

    digest: str | None
    size: int | None
    validator: str | None = None
    """Only without a digest: then it alone shows that the bytes belong to one version of the file."""


class Identity(msgspec.Struct, frozen=True, tag="source", forbid_unknown_fields=True):
    """One version of the file at one source. Pieces name it by its number: the first line is 0."""

    name: str
    validator: str | None


class Piece(msgspec.Struct, frozen=True, tag="piece", forbid_unknown_fields=True):
    start: int
    end: int
    checksum: str
    source: int


class Connections(msgspec.Struct, frozen=True, tag="connections", forbid_unknown_fields=True):
    """How many connections to a source of this name were worth it: the next run begins with so many."""

    name: str
    count: int


_Line = Header | Identity | Piece | Connections
_DECODER: msgspec.json.Decoder[_Line] = msgspec.json.Decoder(_Line)
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class JournalContent:
    """What was read from a journal."""

    header: Header
    identities: tuple[Identity, ...]
    pieces: tuple[Piece, ...]
    """In file order and without overlap."""

    connections: dict[str, int]
    """By the name of their source."""

    length: int
    """Of the part of the journal that is not damaged."""


def checksum(data: memoryview) -> str:
    return xxhash.xxh3_64_hexdigest(data)


def encode(lines: Iterable[_Line]) -> bytes:
    return b"".join(
        xxhash.xxh3_64_hexdigest(body).encode() + b" " + body + b"\n" for body in map(_ENCODER.encode, lines)
    )


def append(descriptor: int, lines: Sequence[_Line], offset: int) -> int:
    """Durable on return; the new length."""
    data = encode(lines)
    durable.write_at(descriptor, memoryview(data), offset)
    durable.sync_file(descriptor)
    return offset + len(data)


def read(descriptor: int) -> JournalContent | None:
    """None when it is empty, damaged from the start, or not a journal."""
    size = os.fstat(descriptor).st_size
    if size == 0 or size > _MAX_BYTES:
        return None
    data = bytearray(size)
    got = durable.read_at(descriptor, memoryview(data), 0)
    return parse(bytes(data[:got]))


def parse(data: bytes) -> JournalContent | None:
    header: Header | None = None
    identities: list[Identity] = []
    pieces: list[Piece] = []
    connections: dict[str, int] = {}
    length = 0
    while (end := data.find(b"\n", length)) >= 0:
        line = _decode(data[length:end])
        if line is None or isinstance(line, Header) is not (header is None):
            break
        if isinstance(line, Header):
            header = line
        elif isinstance(line, Identity):
            identities.append(line)
        elif isinstance(line, Connections):
            connections[line.name] = line.count
        elif not 0 <= line.start < line.end or not 0 <= line.source < len(identities):
            break
        else:
            pieces.append(line)
        length = end + 1
    if header is None:
        return None
    return JournalContent(header, tuple(identities), _without_overlap(pieces, header.size), connections, length)


def _decode(line: bytes) -> _Line | None:
    mark, _, body = line.partition(b" ")
    if xxhash.xxh3_64_hexdigest(body).encode() != mark:
        return None
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _without_overlap(pieces: list[Piece], size: int | None) -> tuple[Piece, ...]:
    """Of two pieces that overlap, only the later one: its bytes were written over those of the other."""
    claimed = Extents()
    kept: list[Piece] = []
    for piece in reversed(pieces):
        if (size is None or piece.end <= size) and not claimed.overlaps(piece.start, piece.end):
            claimed.add(piece.start, piece.end)
            kept.append(piece)
    kept.sort(key=lambda piece: piece.start)
    return tuple(kept)
