"""The oldest file of the log: what rotation pushes out of the second oldest joins it, and each user keeps a share.

So a user who fills the log pushes out lines of their own, and the outcomes of all others stay.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from modeld.activity.generations import BATCH_BYTES, LINE_BYTES

REFUSED: Final = -1
"""The owner of the lines about refused connections: any user of the machine can cause them, also one without a role."""


class _Owned(msgspec.Struct):
    event: str
    peer: int | None = None


_OWNED: Final = msgspec.json.Decoder(_Owned)

UserOf = Callable[[int], int]
"""The uid that counts for another."""

Owner = int | None
"""The user whose work a line is about; None for the daemon itself."""


def merge(older: int, newer: int, target: int, max_bytes: int, user_of: UserOf) -> None:
    """Writes the lines of two files that fit into so many bytes to a third, in their order. Blocks. Raises OSError."""
    surplus = _surplus(_sizes((older, newer), user_of), max_bytes)
    kept = bytearray()
    for line in _lines((older, newer)):
        owner = _owner(line, user_of)
        if surplus.get(owner, 0) > 0:
            surplus[owner] -= len(line)
            continue
        kept += line
        if len(kept) >= BATCH_BYTES:
            _write(target, kept)
    _write(target, kept)
    os.fsync(target)


def _sizes(descriptors: Iterable[int], user_of: UserOf) -> Counter[Owner]:
    sizes: Counter[Owner] = Counter()
    for line in _lines(descriptors):
        sizes[_owner(line, user_of)] += len(line)
    return sizes


def _surplus(sizes: Counter[Owner], max_bytes: int) -> dict[Owner, int]:
    """How many bytes, the oldest, each owner loses. Who needs less than an equal share leaves the rest to others."""
    room, owners = max_bytes, len(sizes)
    surplus: dict[Owner, int] = {}
    for owner, size in sorted(sizes.items(), key=lambda item: item[1]):
        share = min(size, room // owners)
        surplus[owner] = size - share
        room, owners = room - share, owners - 1
    return surplus


def _lines(descriptors: Iterable[int]) -> Iterator[bytes]:
    """The lines with their newlines, without what is no line of this log."""
    for descriptor in descriptors:
        offset, carry = 0, b""
        while block := os.pread(descriptor, BATCH_BYTES, offset):
            offset += len(block)
            *lines, carry = (carry + block).split(b"\n")
            yield from (line + b"\n" for line in lines if 0 < len(line) <= LINE_BYTES)
            carry = carry if len(carry) <= LINE_BYTES else b""


def _owner(line: bytes, user_of: UserOf) -> Owner:
    try:
        owned = _OWNED.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if owned.event == "peer.refused":
        return REFUSED
    return None if owned.peer is None else user_of(owned.peer)


def _write(descriptor: int, data: bytearray) -> None:
    while data:
        del data[: os.write(descriptor, data)]
