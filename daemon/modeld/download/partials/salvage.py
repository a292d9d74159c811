"""Begins a download with the blocks of damaged files that are still good: the engine then fetches only what is missing.

Which blocks are good is known from the checksums of the blob. Each is copied into the partial download of its digest,
and journalled as bytes of an earlier run are: so a kill loses little, the bytes are compared once more before they are
hashed, and the digest of the whole decides. Where the filesystem shares extents, a copy takes neither time nor space.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import xxhash

from modeld.download.partials.buffers import new_buffer
from modeld.download.partials.extents import Extents
from modeld.download.partials.journal import Header, Piece, checksum
from modeld.download.partials.partial import Partial
from modeld.download.tuning import PIECE
from modeld.progress import FileProgress, check
from modeld.store.blobs.block_checksums import BLOCK, BlockSums
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.publish.holds import Holds

KEPT: Final = "quarantine"
COPIED: Final = "local copy"
"""Who gave the bytes, as a journal names a source."""

_SYNCED_EACH: Final = 4 * BLOCK
"""The most that a kill costs, as it is with a download."""


@dataclass(frozen=True, slots=True)
class Donor:
    """An open file that has some of the bytes."""

    who: str
    descriptor: int


@dataclass(slots=True)
class Salvaged:
    size: int
    """Of the whole file."""

    blocks: int = 0
    damaged: int = 0
    """Blocks that no `KEPT` donor has."""

    have: Extents = field(default_factory=Extents)

    @property
    def missing(self) -> int:
        """Bytes that are still to be fetched."""
        return self.size - self.have.total


def salvage(
    layout: Layout,
    digest: Digest,
    known: BlockSums | None,
    donors: Sequence[Donor],
    *,
    keep_incomplete: bool,
    space: Space,
    holds: Holds,
    progress: FileProgress,
) -> Salvaged | None:
    """Blocks. Of several donors the first that has a block gives it. Without checksums the donor must be a copy of the
    whole, and only the digest tells whether it is. `keep_incomplete` says that the missing bytes can be fetched; else a
    download that this call has begun is removed unless it has all of them. None when another process has the download
    open, or there is nothing to begin with."""
    proven = known is not None
    if known is None:
        donors = [donor for donor in donors if donor.who == COPIED][:1]
        if not donors:
            return None
        size = os.fstat(donors[0].descriptor).st_size
        known = BlockSums(size, (0,) * -(-size // BLOCK))
    progress.phase("copy")
    partial = Partial.open(layout, Header(digest.hex, known.size), digest, None, holds)
    try:
        if not partial.resumable or (not proven and _has_better(partial)):
            return None
        progress.partial(os.path.dirname(partial.path))
        found = Salvaged(known.size)
        for piece in partial.pieces:
            found.have.add(piece.start, piece.end)
        readers = [(_Reader(donor, progress), partial.identity(donor.who, None)) for donor in donors]
        with space.reserve(max(0, known.size - partial.allocated)) as reservation:
            try:
                _copy_blocks(partial, found, known, readers, proven, progress)
            finally:
                reservation.leave(partial.path, partial.allocated)
        if not found.have or (found.missing and not keep_incomplete and not partial.pieces):
            partial.remove()
        return found
    finally:
        partial.close()


def _has_better(partial: Partial) -> bool:
    """Whether a source has given some of it. A copy that may be of another file would cost these bytes too."""
    return any(partial.identities[piece.source].name != COPIED for piece in partial.pieces)


def _copy_blocks(
    partial: Partial,
    found: Salvaged,
    known: BlockSums,
    readers: Sequence[tuple[_Reader, int]],
    proven: bool,
    progress: FileProgress,
) -> None:
    written: list[Piece] = []
    for (offset, length), expected in zip(known.ranges(), known.sums, strict=True):
        check(progress)
        found.blocks += 1
        giver, pieces = None, list[Piece]()
        for reader, identity in readers:
            pieces = reader.pieces(offset, length, expected if proven else None, identity)
            if pieces:
                giver = reader
                break
        found.damaged += giver is None or giver.who != KEPT
        for piece in pieces:
            if giver is not None and not found.have.overlaps(piece.start, piece.end):
                with store_faults("copy good blocks to", partial.path):
                    durable.copy_range(giver.descriptor, partial.descriptor, piece.start, piece.end - piece.start)
                found.have.add(piece.start, piece.end)
                written.append(piece)
        if sum(piece.end - piece.start for piece in written) >= _SYNCED_EACH:
            partial.record(written)
            written = []
    if written:
        partial.record(written)


class _Reader:
    def __init__(self, donor: Donor, progress: FileProgress) -> None:
        self.who = donor.who
        self.descriptor = donor.descriptor
        self._progress = progress
        self._buffer = new_buffer(PIECE)

    def pieces(self, offset: int, length: int, expected: int | None, identity: int) -> list[Piece]:
        """The block in pieces for the journal; none when the file does not have it, or cannot be read there."""
        block, pieces = xxhash.xxh3_64(), list[Piece]()
        try:
            for start in range(offset, offset + length, PIECE):
                check(self._progress)
                wanted = self._buffer[: min(PIECE, offset + length - start)]
                if durable.read_at(self.descriptor, wanted, start) < len(wanted):
                    return []
                block.update(wanted)
                pieces.append(Piece(start, start + len(wanted), checksum(wanted), identity))
        except OSError as fault:
            if fault.errno != errno.EIO:
                raise
            return []
        return pieces if expected is None or block.intdigest() == expected else []
