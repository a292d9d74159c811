"""The log of a disk's writes and flushes, and what a power failure at any of its moments may have left of them.

A disk keeps what it had before the last flush. Of what came later, each piece may be there or not, whatever the order.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_RECORD = struct.Struct("<QQ")
"""Offset and length. A flush has no length."""

PAGE = 4096
"""The bytes that the disk writes at once or not at all where a filesystem relies on it."""

KEPT = (0.0, 0.1, 0.5, 0.9)
"""The share of the unflushed pieces that the disk has written, one of these for each crash."""


class LogWriter:
    """Of the disk itself. A request is in the log before the disk answers it."""

    def __init__(self, directory: str) -> None:
        self._records, self._data = (
            os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            for name in ("records", "data")
        )

    def write(self, offset: int, data: memoryview) -> None:
        if os.write(self._data, data) != len(data):
            raise OSError("the log of the disk takes no more")
        os.write(self._records, _RECORD.pack(offset, len(data)))

    def flush(self) -> None:
        os.write(self._records, _RECORD.pack(0, 0))


@dataclass(frozen=True)
class Write:
    offset: int
    data: bytes

    def pieces(self, size: int, whole: tuple[range, ...]) -> Iterator[Write]:
        """Parts of at most `size` aligned bytes, of a page within the ranges `whole`."""
        end = self.offset + len(self.data)
        at = self.offset
        while at < end:
            step = PAGE if any(at in part for part in whole) else size
            after = min(at // step * step + step, end)
            yield Write(at, self.data[at - self.offset : after - self.offset])
            at = after


class BlockLog:
    """Reads the log, also while the disk still writes it. Moments are numbers of requests."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def now(self) -> int:
        """The moment after the last request that the disk has answered, or is about to answer."""
        return os.path.getsize(f"{self._directory}/records") // _RECORD.size

    def read(self) -> list[Write | None]:
        """All requests; None is a flush."""
        with open(f"{self._directory}/records", "rb") as records, open(f"{self._directory}/data", "rb") as data:
            return [
                Write(offset, data.read(length)) if length else None
                for offset, length in _RECORD.iter_unpack(records.read())
            ]


class Replay:
    """Makes the images that crashes leave, from an early moment to a late one."""

    def __init__(self, log: BlockLog, before: str, *, whole: tuple[range, ...] = ()) -> None:
        """`before` is the image from before the first request: it is brought forward. `whole` are the places that the
        filesystem cannot do without: the disk writes their pages whole."""
        self._requests = log.read()
        self._flushes = [-1] + [number for number, request in enumerate(self._requests) if request is None]
        self._image = before
        self._whole = whole
        self._durable = 0
        """All requests before this moment are in the image."""

    def moments(self, chance: random.Random, count: int, first: int, last: int) -> list[int]:
        """Half of them when a flush is about to begin, half before; the more there is to lose the more often."""
        windows = {
            range(before + 2, after + 1): sum(len(request.data) for request in self._requests[before:after] if request)
            for before, after in pairwise(self._flushes)
            if first <= before and after <= last and after - before > 1
        }
        chosen = chance.choices(list(windows), list(windows.values()), k=count)
        return [window[-1] if number % 2 else chance.choice(window) for number, window in enumerate(chosen)]

    def advance(self, moment: int) -> None:
        """Writes all that came before this moment to the image from which crashes are made."""
        assert moment >= self._durable, "moments are asked for in their order"
        _apply(self._image, (request for request in self._requests[self._durable : moment] if request is not None))
        self._durable = moment

    def crash(self, moment: int, chance: random.Random, image: str) -> int:
        """Writes what a crash at this moment may have left to a new image; returns how many pieces were dropped."""
        flushed = self._flushes[bisect_right(self._flushes, moment - 1) - 1] + 1
        self.advance(flushed)
        subprocess.run(["cp", "--sparse=always", self._image, image], check=True)
        size, kept = chance.choice((512, PAGE)), chance.choice(KEPT)
        pieces = [
            piece
            for request in self._requests[flushed:moment]
            if request is not None
            for piece in request.pieces(size, self._whole)
        ]
        left = [piece for piece in pieces if chance.random() < kept]
        _apply(image, left)
        return len(pieces) - len(left)


def _apply(image: str, writes: Iterator[Write] | list[Write]) -> None:
    descriptor = os.open(image, os.O_WRONLY)
    try:
        for write in writes:
            os.pwrite(descriptor, write.data, write.offset)
    finally:
        os.close(descriptor)
