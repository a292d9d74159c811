"""Parts of a file: a sorted set of ranges that do not touch."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Extents:
    """Half-open ranges; neighbours are joined, so a finished file is one range."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def total(self) -> int:
        return sum(end - start for start, end in self)

    @property
    def end(self) -> int:
        """Of the last range; 0 without any."""
        return self._ends[-1] if self._ends else 0

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        if start >= end:
            return
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end)
        if first >= last:
            return
        kept = [
            (left, right) for left, right in ((self._starts[first], start), (end, self._ends[last - 1])) if left < right
        ]
        self._starts[first:last] = [left for left, _ in kept]
        self._ends[first:last] = [right for _, right in kept]

    def reach(self, offset: int) -> int:
        """The end of the range that holds `offset`; `offset` itself when it lies in a gap."""
        index = bisect_right(self._starts, offset) - 1
        if index >= 0 and self._ends[index] > offset:
            return self._ends[index]
        return offset

    def gap(self, offset: int, end: int) -> tuple[int, int] | None:
        """The first gap at or after `offset`, up to `end`."""
        start = self.reach(offset)
        if start >= end:
            return None
        index = bisect_right(self._starts, start)
        return start, min(end, self._starts[index]) if index < len(self._starts) else end

    def covers(self, start: int, end: int) -> bool:
        return start >= end or self.reach(start) >= end

    def overlaps(self, start: int, end: int) -> bool:
        return bisect_right(self._ends, start) < bisect_left(self._starts, end)
