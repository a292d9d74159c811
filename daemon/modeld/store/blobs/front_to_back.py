"""Reads or writes a file once, from front to back, and leaves the page cache to other programs."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from modeld.store.disk import durable

UNCACHED_FROM = 1024 * 1024
"""An uncached call also starts to write its pages out; below this size that costs more than it saves."""

_BEHIND = 32 * 1024 * 1024
"""Distance behind the write position at which pages are dropped where the kernel has no uncached calls: by then
they are written."""

_UNKNOWN_FLAG = (errno.EOPNOTSUPP, errno.EINVAL)
_HAS_FLAGS = sys.platform == "linux"


class FrontToBackReader:
    """Reads a file once and leaves the page cache as it was: cached pages stay, new ones are dropped.

    Where the kernel has no uncached reads, eight probes decide whether the file was cached before; a query of
    every page (mincore) would need a mapping of the file, and a file that shrinks then kills the process.
    """

    def __init__(self, descriptor: int, size: int, *, keep_cache: bool = False) -> None:
        self._descriptor = descriptor
        self._flags = durable.RWF_DONTCACHE if _HAS_FLAGS and not keep_cache and size >= UNCACHED_FROM else 0
        self._drop = False
        self._size = size

    def read(self, into: memoryview, offset: int) -> int:
        if not self._flags:
            return self._read_plain(into, offset)
        try:
            return durable.read_at(self._descriptor, into, offset, self._flags)
        except OSError as error:
            if error.errno not in _UNKNOWN_FLAG:
                raise
        self._flags = 0
        self._drop = not self._was_cached()
        return self._read_plain(into, offset)

    def _read_plain(self, into: memoryview, offset: int) -> int:
        got = durable.read_at(self._descriptor, into, offset)
        if self._drop:
            durable.forget_pages(self._descriptor, offset, got)
        return got

    def _was_cached(self) -> bool:
        spots = 8
        byte = memoryview(bytearray(1))
        cached = 0
        for index in range(spots):
            with contextlib.suppress(OSError):
                cached += durable.read_at(self._descriptor, byte, self._size * index // spots, os.RWF_NOWAIT)
        return cached > spots // 2


class FrontToBackWriter:
    """Writes a file once without filling the page cache.

    Fresh page cache is expensive on a virtual machine: plain writing of a big file swings between 1.2 and 3.2
    times the cost of its hash, bounded use of the cache stays flat. The price is a cold first load.
    """

    def __init__(self, descriptor: int, *, keep_cache: bool = False) -> None:
        self._descriptor = descriptor
        self._flags = durable.RWF_DONTCACHE if _HAS_FLAGS and not keep_cache else 0
        self._keep_cache = keep_cache

    def write(self, data: memoryview, offset: int) -> None:
        if self._flags and len(data) >= UNCACHED_FROM:
            try:
                durable.write_at(self._descriptor, data, offset, self._flags)
                return
            except OSError as error:
                if error.errno not in _UNKNOWN_FLAG:
                    raise
            self._flags = 0
        durable.write_at(self._descriptor, data, offset)
        if not self._flags and not self._keep_cache and len(data) >= UNCACHED_FROM:
            start = max(0, offset - _BEHIND)
            durable.forget_pages(self._descriptor, start, offset + len(data) - start)
