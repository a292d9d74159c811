"""The blobs that manifests name, which a sweep must not remove: rather one too many than one too few.

So a manifest counts by its bytes: any text that looks like a digest in any file of the directory holds that blob, also
in a damaged file, in a file of another version, in a file that has no name yet, and in capitals, which the reader of
manifests refuses.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.listing import Times, settled, times_of
from modeld.store.names import ModelName

LONGEST: Final = 16 * 1024 * 1024
"""A manifest has at most 1 MiB; a longer file may be anything."""

_DIGEST = re.compile(rb"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")
_ESCAPED = re.compile(rb"\\u00([0-9a-fA-F]{2})")


_FRESH_SHARE: Final = 10
"""A look at 10,000 manifests takes 30 ms. Removals of many models look again after ten times as long as a look took."""


@dataclass(frozen=True, slots=True)
class Marked:
    digests: frozenset[str]
    """In hex."""
    unreadable: tuple[str, ...]
    """Files that may name any blob: while such a file exists, no blob may be removed."""


class Marks:
    """Blocking, from any thread; `changed` alone does not wait. A look stats each file and reads the changed ones: an
    editor that writes in place changes no directory."""

    def __init__(self, layout: Layout, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = layout.manifests_dir
        self._clock = clock
        self._lock = threading.Lock()
        self._files: dict[str, tuple[Times, frozenset[str]]] = {}
        self._namers: Counter[str] = Counter()
        """How many files name each digest."""
        self._unreadable: tuple[str, ...] = ()
        self._changed: set[str] = set()
        self._fresh_until = float("-inf")

    def look(self) -> Marked:
        with self._lock:
            self._read_all()
            return Marked(frozenset(self._namers), self._unreadable)

    def changed(self, name: ModelName) -> None:
        """Call it after this daemon wrote or removed the manifest of that name."""
        self._changed.add(f"{name.stem}.json")

    def named_only_by(self, name: ModelName, digests: Iterable[str]) -> set[str]:
        """Those of the digests that no other manifest names, to report it: it may not know of a change that another
        tool made a moment ago."""
        file = f"{name.stem}.json"
        with self._lock:
            self._refresh()
            _, own = self._files.get(file, (None, frozenset[str]()))
            if any(path != f"{self._path}/{file}" for path in self._unreadable):
                return set()
            return {digest for digest in digests if self._namers[digest] <= (digest in own)}

    def mentioning(self, digest: str) -> list[str]:
        """The stems of the manifests that have it anywhere, and maybe name other bytes. As `named_only_by`, it may not
        know what another tool did a moment ago."""
        with self._lock:
            self._refresh()
            return [file.removesuffix(".json") for file, (_, marks) in self._files.items() if digest in marks]

    def _refresh(self) -> None:
        if self._clock() >= self._fresh_until:
            self._read_all()
        else:
            self._read_changed()

    def _read_all(self) -> None:
        before = self._clock()
        gone = set(self._files)
        unreadable: list[str] = []
        self._changed.clear()
        with store_faults("read", self._path), os.scandir(self._path) as entries:
            for entry in entries:
                try:
                    self._read(entry.name, entry.path, entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
                except OSError:
                    unreadable.append(entry.path)
                    continue
                gone.discard(entry.name)
        for file in gone:
            self._forget(file)
        self._unreadable = tuple(unreadable)
        after = self._clock()
        self._fresh_until = after + (after - before) * _FRESH_SHARE

    def _read_changed(self) -> None:
        while self._changed:
            file = self._changed.pop()
            path = f"{self._path}/{file}"
            try:
                self._read(file, path, os.lstat(path))
            except OSError:
                self._forget(file)

    def _read(self, file: str, path: str, info: os.stat_result) -> None:
        times, known = times_of(info), self._files.get(file)
        if known is not None and known[0] == times and settled(info, _now()):
            return
        digests = _digests_in(path)
        self._forget(file)
        self._files[file] = times, digests
        self._namers.update(digests)

    def _forget(self, file: str) -> None:
        _, digests = self._files.pop(file, (None, frozenset[str]()))
        for digest in digests:
            self._namers[digest] -= 1
            if not self._namers[digest]:
                del self._namers[digest]


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
    data = data.replace(b"\0", b"")  # UTF-16, in which some tools write all their text
    data = _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), data)
    return frozenset(found.decode().lower() for found in _DIGEST.findall(data))
