"""Which connection fetches which bytes: parts of one file, given out in file order, never twice.

A segment is what one connection may request, in one request or several. Only bytes that were not requested yet go to
another connection: a server sends all of a requested range, also what is not read.

Pure; the caller holds the lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modeld.download.partials.extents import Extents
from modeld.download.tuning import SMALLEST_SPLIT

UNBOUNDED: Final = 1 << 62
"""The end of a file whose size is not known."""

SLOW_SECONDS: Final = 1.0
"""A connection that takes longer for its segment shares it with an idle connection."""


@dataclass(slots=True, eq=False)
class Segment:
    """`position` moves forward as bytes are written. `asked` is the end of the last request. `end` moves back when
    a part of the rest is given away, but never before `asked`."""

    start: int
    end: int
    taken_at: float
    position: int = 0
    asked: int = 0

    @property
    def left(self) -> int:
        return self.end - self.position

    @property
    def half(self) -> int:
        """The start of the part that can be given away."""
        return max(self.asked, self.position + self.left // 2)

    @property
    def spare(self) -> int:
        return self.end - self.half


class Segments:
    def __init__(self, size: int | None) -> None:
        self.size = size
        self.have = Extents()
        self._busy: list[Segment] = []

    @property
    def limit(self) -> int:
        return UNBOUNDED if self.size is None else self.size

    @property
    def complete(self) -> bool:
        return self.size is not None and self.have.covers(0, self.size)

    @property
    def missing(self) -> int | None:
        return None if self.size is None else self.size - self.have.total

    def next_free(self) -> tuple[int, int] | None:
        """The first part that is neither here nor in a segment."""
        offset = 0
        while (gap := self.have.gap(offset, self.limit)) is not None:
            start, end = gap
            for busy in sorted(self._busy, key=lambda segment: segment.position):
                if busy.position <= start < busy.end:
                    start = busy.end
                elif start < busy.position < end:
                    end = busy.position
            if start < end:
                return start, end
            offset = start
        return None

    def take(self, now: float, longest: int) -> Segment | None:
        free = self.next_free()
        if free is None:
            return None
        segment = Segment(free[0], min(free[1], free[0] + longest), now, free[0], free[0])
        self._busy.append(segment)
        return segment

    def take_all(self, now: float) -> Segment:
        """The whole file for one connection, the parts that are here already included."""
        segment = Segment(0, self.limit, now, 0, self.limit)
        self._busy.append(segment)
        return segment

    def ask(self, segment: Segment, longest: int) -> int:
        """The end of the next request of this segment."""
        segment.asked = min(segment.end, segment.position + longest)
        return segment.asked

    def slow(self, now: float) -> Segment | None:
        """The slow segment with the most to give away, when that is worth another request."""
        slow = max(
            (segment for segment in self._busy if now - segment.taken_at >= SLOW_SECONDS),
            key=lambda segment: segment.spare,
            default=None,
        )
        return slow if slow is not None and self.size is not None and slow.spare >= SMALLEST_SPLIT else None

    def split(self, now: float) -> Segment | None:
        """The second half of what the slowest connection has to fetch, or as much of it as was not requested yet."""
        slow = self.slow(now)
        if slow is None:
            return None
        middle = slow.half
        half = Segment(middle, slow.end, now, middle, middle)
        slow.end = middle
        slow.taken_at = now
        self._busy.append(half)
        return half

    def wrote(self, segment: Segment, end: int) -> None:
        self.have.add(segment.position, end)
        segment.position = end

    def release(self, segment: Segment) -> None:
        """Finished or not: bytes that were not written are free for other connections."""
        if segment in self._busy:
            self._busy.remove(segment)

    def lost(self, start: int, end: int) -> None:
        """These bytes are damaged, and missing again."""
        self.have.remove(start, end)

    @property
    def busy(self) -> int:
        return len(self._busy)
