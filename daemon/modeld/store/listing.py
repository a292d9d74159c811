"""Which names there are: the directory of manifests, read again only when it has changed.

Two spellings of one name are one model on every platform, but most filesystems hold both. This is where the second
one is noticed.
"""

from __future__ import annotations

import difflib
import os
import time
from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Final

from modeld.store import durable
from modeld.store.layout import Layout
from modeld.store.names import ModelName
from modelwire.errors import InvalidName

SETTLED_NS: Final = 50_000_000
"""File times tick as coarsely as the kernel's timer, 10 ms at the slowest: what was written this shortly before it
was read can change again under the same times."""

_RESCAN_SHARE: Final = 10
"""Look-ups of names that are not there spend at most a tenth of the time on reading the directory again."""

_HINT_NEIGHBOURS: Final = 100
"""Names compared on each side of where a missing name would stand: a hint must not cost milliseconds."""

Times = tuple[int, int, int, int]


def times_of(info: os.stat_result) -> Times:
    """Two different states of a file have different times, once they are settled."""
    return (info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_size)


def settled(info: os.stat_result, read_at_ns: int) -> bool:
    return max(info.st_mtime_ns, info.st_ctime_ns) < read_at_ns - SETTLED_NS


class Listing:
    """The names of one store. What this daemon publishes is known at once, what others publish after a look."""

    def __init__(self, layout: Layout, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = layout.manifests_dir
        self._clock = clock
        self._times: Times | None = None
        self._next_look = 0.0
        self._names: list[str] = []
        self._spellings: dict[str, str] = {}
        self.refused: tuple[tuple[str, str], ...] = ()
        """Files whose names are no names of models, or second spellings of one: (file's stem, why)."""

    def names(self) -> list[str]:
        """Every name, sorted. The list is not to be changed."""
        self._look()
        return self._names

    def spelling(self, name: ModelName) -> str | None:
        """How the model of this name spells it, when there is one."""
        if self._clock() >= self._next_look:
            before = self._clock()
            if self._look():
                self._next_look = self._clock() + (self._clock() - before) * _RESCAN_SHARE
        return self._spellings.get(name.key)

    def close_to(self, name: ModelName) -> list[str]:
        """Names that may have been meant."""
        keys = sorted(self._spellings)
        at = bisect_left(keys, name.key)
        near = keys[max(0, at - _HINT_NEIGHBOURS) : at + _HINT_NEIGHBOURS]
        return [self._spellings[key] for key in difflib.get_close_matches(name.key, near, n=3, cutoff=0.6)]

    def add(self, name: ModelName) -> None:
        if self._spellings.setdefault(name.key, name.text) == name.text:
            at = bisect_left(self._names, name.text)
            if at == len(self._names) or self._names[at] != name.text:
                insort(self._names, name.text)

    def discard(self, name: ModelName) -> None:
        """Another file may spell the same name: the next look tells."""
        if self._spellings.get(name.key) == name.text:
            del self._spellings[name.key]
            self._names.remove(name.text)
        self._times = None

    def _look(self) -> bool:
        """Whether the directory had to be read."""
        with durable.store_faults("read", self._path):
            info = os.stat(self._path)
            if times_of(info) == self._times:
                return False
            started = time.time_ns()
            with os.scandir(self._path) as files:
                stems = [file.name[:-5] for file in files if file.name.endswith(".json") and file.name[0] != "."]
        self._sort_out(stems)
        self._times = times_of(info) if settled(info, started) else None
        return True

    def _sort_out(self, stems: list[str]) -> None:
        spellings: dict[str, str] = {}
        found: list[ModelName] = []
        refused: list[tuple[str, str]] = []
        for stem in sorted(stems):
            try:
                name = ModelName.from_stem(stem)
            except InvalidName as fault:
                refused.append((stem, fault.message))
                continue
            found.append(name)
            # What was known first stays the spelling; of two new ones it is the one that sorts first.
            if name.key not in spellings or self._spellings.get(name.key) == name.text:
                spellings[name.key] = name.text
        if len(found) > len(spellings):
            refused += [
                (name.stem, f"'{name.text}' is another spelling of '{spellings[name.key]}'")
                for name in found
                if spellings[name.key] != name.text
            ]
        self._names, self._spellings, self.refused = sorted(spellings.values()), spellings, tuple(refused)
