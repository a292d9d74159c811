"""The buffers that connections read into, and how many of them may stay filled until they are hashed."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modeld.download.tuning import CHUNK, RETAINED


def new_buffer(size: int = CHUNK) -> memoryview:
    """Page-aligned, and returned to the system with its last view."""
    return memoryview(mmap.mmap(-1, size))


class Buffers:
    """Shared by all files: the same memory for any number of connections, and none while nothing is fetched."""

    def __init__(self, most: int = RETAINED // CHUNK, make: Callable[[], memoryview] = new_buffer) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._left = most
        self._free: list[memoryview] = []
        self._transfers = 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While one file is fetched. The end of the last fetch returns the memory to the system."""
        with self._lock:
            self._transfers += 1
        try:
            yield
        finally:
            with self._lock:
                self._transfers -= 1
                if self._transfers == 0:
                    self._left += len(self._free)
                    self._free.clear()

    def take(self) -> memoryview | None:
        """None when too many are filled: then the hasher reads the bytes back from the page cache."""
        with self._lock:
            if self._free:
                return self._free.pop()
            if self._left == 0:
                return None
            self._left -= 1
        return self._make()

    def give_back(self, buffer: memoryview) -> None:
        with self._lock:
            if self._transfers:
                self._free.append(buffer)
            else:  # a thread has ended after its file
                self._left += 1
