"""Reading in the background: from the disk itself, below a rate, and out of the way of other work.

A copy in the page cache says nothing of what lies on the disk, so the cache is passed by where the filesystem can.
"""

from __future__ import annotations

import errno
import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from modeld.progress import FileProgress, check
from modeld.store.blobs.front_to_back import FrontToBackReader
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable

SECTOR: Final = 4096
"""Reads past the page cache begin, end and land at multiples of a sector; none of today is longer."""

BURST_SECONDS: Final = 0.25
"""How much a reader may catch up after a disk that was slow for a moment."""

LONGEST_PAUSE_SECONDS: Final = 3600.0
"""Beside jobs that follow each other for days, the background has its turns too."""

TURN_SECONDS: Final = 60.0

FILE_BYTES: Final = 64 * 1024
"""What a file costs beside its bytes, as bytes: a disk moves its head for each."""

_LOOK_SECONDS: Final = 0.25
"""Between two looks whether to stop, or whether other work has ended."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the reading of a long blob is. The offset is None while it is hashed: that cannot go on in the middle."""

    digest: Digest
    signature: Signature
    offset: int | None


class Background:
    """One reader, or several that share the rate. For threads."""

    def __init__(
        self,
        rate: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = rate
        self.busy: Callable[[], bool] = lambda: False
        """Returns whether other work is under way; any thread calls it."""
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0
        """When the bytes that were read have cost their time."""
        self._turn_ends = 0.0
        self.waits = False
        """Whether it waits for other work now."""
        self.place: Place | None = None

    def begin(self, place: Place, progress: FileProgress) -> int:
        """Call it before the first byte of a file. Returns the offset to begin at: where an earlier reading of the same
        file, unchanged since, has stopped."""
        self.took(FILE_BYTES, progress)
        earlier, self.place = self.place, place
        if earlier is None or place.offset is None or not earlier.offset:
            return 0
        if earlier.digest != place.digest or not earlier.signature.is_unchanged(place.signature):
            return 0
        self.place = earlier
        return earlier.offset

    def took(self, size: int, progress: FileProgress) -> None:
        """Returns when the next bytes may be read after so many. Raises Stopped."""
        if self.rate is not None:
            self._free_at = max(self._free_at, self._clock() - BURST_SECONDS) + size / self.rate
            while (seconds := self._free_at - self._clock()) > 0:
                check(progress)
                self._sleep(min(seconds, _LOOK_SECONDS))
        if self._clock() >= self._turn_ends:
            self._let_others_work(progress)
        check(progress)

    def _let_others_work(self, progress: FileProgress) -> None:
        began = self._clock()
        try:
            while self.busy():
                self.waits = True
                check(progress)
                self._sleep(_LOOK_SECONDS)
                if self._clock() - began >= LONGEST_PAUSE_SECONDS:
                    self._turn_ends = self._clock() + TURN_SECONDS
                    return
        finally:
            self.waits = False


class DirectReader:
    """One file from front to back, from the disk. Where the filesystem cannot, as FrontToBackReader does."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._cached = FrontToBackReader(descriptor, size)
        self._direct = durable.set_direct(descriptor, True)
        self._last = memoryview(mmap.mmap(-1, SECTOR))

    def read(self, into: memoryview, offset: int) -> int:
        if self._direct:
            try:
                return self._read_direct(into, offset)
            except OSError as fault:
                if fault.errno != errno.EINVAL:
                    raise
            self._direct = False
            durable.set_direct(self._descriptor, False)
        return self._cached.read(into, offset)

    def _read_direct(self, into: memoryview, offset: int) -> int:
        if whole := len(into) - len(into) % SECTOR:
            return durable.read_once(self._descriptor, into[:whole], offset)
        got = min(durable.read_once(self._descriptor, self._last, offset), len(into))
        into[:got] = self._last[:got]
        return got
