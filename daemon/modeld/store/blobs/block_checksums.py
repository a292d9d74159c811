"""A checksum of each 16 MiB of a blob, so that a repair fetches only the damaged ranges.

The checksums only save work: the digest of the whole decides. So their file is written without a sync and has a
checksum of itself; a file that does not match it counts as absent.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout

BLOCK = 16 * 1024 * 1024
"""The best size for a ranged request, and 1/4000 of a 64 GiB model."""

_MAGIC = b"modeld blocks 1\n"
_HEAD = struct.Struct(">16sQQ")
_MAX_FILE = 64 * 1024 * 1024
"""The checksums of a blob of 128 TiB: no larger file is one of these."""


class BlockSummer:
    """Takes the content in order, in pieces of any length."""

    __slots__ = ("_block", "_filled", "_sums")

    def __init__(self) -> None:
        self._block = xxhash.xxh3_64()
        self._filled = 0
        self._sums: list[int] = []

    def update(self, data: memoryview) -> None:
        while len(data) >= BLOCK - self._filled:
            head = data[: BLOCK - self._filled]
            self._block.update(head)
            self._sums.append(self._block.intdigest())
            self._block.reset()
            data, self._filled = data[len(head) :], 0
        if data:
            self._block.update(data)
            self._filled += len(data)

    def finish(self) -> tuple[int, ...]:
        if self._filled:
            self._sums.append(self._block.intdigest())
            self._filled = 0
        return tuple(self._sums)


@dataclass(frozen=True, slots=True)
class BlockSums:
    size: int
    sums: tuple[int, ...]

    def ranges(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of each block, in order."""
        for index in range(len(self.sums)):
            offset = index * BLOCK
            yield offset, min(BLOCK, self.size - offset)


def save_blocks(layout: Layout, digest: Digest, block_sums: BlockSums) -> None:
    """Best effort: without checksums a repair fetches the whole blob."""
    path = layout.blocks(digest)
    body = _HEAD.pack(_MAGIC, block_sums.size, BLOCK) + struct.pack(f">{len(block_sums.sums)}Q", *block_sums.sums)
    body += xxhash.xxh3_64_digest(body)
    temporary = f"{layout.staging}/blocks-{os.getpid()}-{secrets.token_hex(8)}"
    with contextlib.suppress(OSError):
        durable.make_directories(os.path.dirname(path), below=layout.root)
        descriptor = durable.create_file(temporary)
        try:
            try:
                durable.write_at(descriptor, memoryview(body), 0)
            finally:
                durable.close(descriptor)
            durable.name_replacing(temporary, path)
        except BaseException:
            durable.remove(temporary)
            raise


def load_blocks(layout: Layout, digest: Digest) -> BlockSums | None:
    try:
        with open(layout.blocks(digest), "rb") as file:
            body = file.read(_MAX_FILE + 1)
    except OSError:
        return None
    count, rest = divmod(len(body) - _HEAD.size - 8, 8)
    if count < 0 or rest or len(body) > _MAX_FILE or xxhash.xxh3_64_digest(body[:-8]) != body[-8:]:
        return None
    magic, size, block = _HEAD.unpack_from(body)
    if magic != _MAGIC or block != BLOCK or count != -(-size // BLOCK):
        return None
    return BlockSums(size, struct.unpack_from(f">{count}Q", body, _HEAD.size))
