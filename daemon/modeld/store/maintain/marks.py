"""The blobs that manifests name, which a sweep must not remove: rather one too many than one too few.

So a manifest counts by its bytes: any text that looks like a digest in any file of the directory holds that blob, also
in a damaged file, in a file of another version, and in a file that has no name yet.
"""

from __future__ import annotations

import os
import re
import stat
import time
from dataclasses import dataclass
from typing import Final

from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.listing import Times, settled, times_of

LONGEST: Final = 16 * 1024 * 1024
"""A manifest has at most 1 MiB; a longer file may be anything."""

_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_ESCAPED = re.compile(rb"\\u00([0-9a-fA-F]{2})")


@dataclass(frozen=True, slots=True)
class Marked:
    digests: frozenset[str]
    """In hex."""
    unreadable: tuple[str, ...]
    """Files that may name any blob: while such a file exists, no blob may be removed."""


class Marks:
    """Blocking, for one thread at a time. A look stats each file and reads the changed ones: an
    editor that writes in place changes no directory."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.manifests_dir
        self._files: dict[str, tuple[Times, frozenset[str]]] = {}
        self._marked = Marked(frozenset(), ())

    def look(self) -> Marked:
        with store_faults("read", self._path):
            self._read_all()
        return self._marked

    def _read_all(self) -> None:
        seen: dict[str, tuple[Times, frozenset[str]]] = {}
        unreadable: list[str] = []
        with os.scandir(self._path) as entries:
            for entry in entries:
                try:
                    times = times_of(entry.stat(follow_symlinks=False))
                    known = self._files.get(entry.name)
                    if known is not None and known[0] == times and settled(entry.stat(follow_symlinks=False), _now()):
                        seen[entry.name] = known
                    else:
                        seen[entry.name] = times, _digests_in(entry.path)
                except FileNotFoundError:
                    continue
                except OSError:
                    unreadable.append(entry.path)
        self._files = seen
        self._marked = Marked(frozenset().union(*(digests for _, digests in seen.values())), tuple(unreadable))


def _now() -> int:
    return time.time_ns()


def _digests_in(path: str) -> frozenset[str]:
    """Follows links: another tool may read their targets as manifests."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            return frozenset()
        if info.st_size > LONGEST:
            raise OSError(f"{path} is too long for a manifest")
        data = b""
        while more := os.read(descriptor, LONGEST):
            data += more
    finally:
        os.close(descriptor)
    data = _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), data)
    return frozenset(found.decode() for found in _DIGEST.findall(data))
