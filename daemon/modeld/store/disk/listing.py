"""The names of all models: the directory of manifests, read again only when it has changed.

Two spellings of one name are one model on every platform, but most filesystems can hold both. The listing detects the
second spelling.
"""

from __future__ import annotations

import difflib
import os
import threading
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.names import ModelName
from modelwire.errors import InvalidName

SETTLED_NS: Final = 50_000_000
"""File times tick as coarsely as the kernel's timer, 10 ms at the slowest: what was written this shortly before it
was read can change again under the same times."""

_RESCAN_SHARE: Final = 10
"""Look-ups of names that are not there spend at most a tenth of the time on reading the directory again."""

_DOUBT_SECONDS: Final = 5.0
"""A model that another tool publishes in the same moment as this daemon is noticed after this long, unless a client
lists the models earlier: reading a directory of 100,000 names after each add would cost every reader its answer."""

_HINT_NEIGHBOURS: Final = 100
"""Names compared on each side of where a missing name would stand: a hint must not cost milliseconds."""

Times = tuple[int, int, int, int]


def times_of(info: os.stat_result) -> Times:
    """Times that differ between two states of a file, once they are settled."""
    return (info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_size)


def settled(info: os.stat_result, read_at_ns: int) -> bool:
    return max(info.st_mtime_ns, info.st_ctime_ns) < read_at_ns - SETTLED_NS


class Listing:
    """The names of one store. This daemon's publications are in it at once, other tools' after a look. All methods
    block, and may be called from any thread."""

    def __init__(
        self,
        layout: Layout,
        clock: Callable[[], float] = time.monotonic,
        *,
        check_root: Callable[[], None] = lambda: None,
    ) -> None:
        """`check_root` raises when another store is at the root's path."""
        self._path = layout.manifests_dir
        self._check_root = check_root
        self._clock = clock
        self._one_at_a_time = threading.RLock()
        self._times: Times | None = None
        self._in_doubt = False
        self._next_look = 0.0
        self._stems: set[str] = set()
        self._parsed: dict[str, ModelName | str] = {}
        """By stem: the name, or the reason why the stem is not a name."""
        self._names: list[str] = []
        self._spellings: dict[str, str] = {}
        self.refused: tuple[tuple[str, str], ...] = ()
        """Files whose names are no names of models, or second spellings of one: (file's stem, why)."""

    def names(self) -> list[str]:
        """Every name, sorted. The caller must not change the list; a publication does."""
        with self._one_at_a_time:
            if self._in_doubt or self._changed():
                self._look()
            return self._names

    @property
    def last_names(self) -> list[str] | None:
        """As `names`, at the last look; None before the first. Never waits."""
        return None if self._times is None else self._names

    @property
    def count(self) -> int:
        """The number of names at the last look. Never waits."""
        return len(self._names)

    def spelling(self, name: ModelName) -> str | None:
        """The spelling of this name in use; None when there is no such model."""
        with self._one_at_a_time:
            before = self._clock()
            if before >= self._next_look and (self._changed() or self._in_doubt):
                self._look()
                after = self._clock()
                self._next_look = after + (after - before) * _RESCAN_SHARE
            return self._spellings.get(name.key)

    def knows(self, name: ModelName) -> bool:
        """Whether the name was there at the last look. Never waits."""
        return name.key in self._spellings

    def check_there(self) -> None:
        """Raises when the directory of manifests is away, or that of another store. A look-up that finds nothing asks
        it: it may have gone by what was known, and with its root away every model seems to be gone."""
        self._check_root()
        with durable.store_faults("read", self._path):
            os.stat(self._path)

    def close_to(self, name: ModelName) -> list[str]:
        """Names that may have been meant."""
        at = bisect_left(self._names, name.text)
        near = self._names[max(0, at - _HINT_NEIGHBOURS) : at + _HINT_NEIGHBOURS]
        keys = {text.lower(): text for text in near}
        return [keys[key] for key in difflib.get_close_matches(name.key, keys, n=3, cutoff=0.6)]

    @contextmanager
    def changing(self, name: ModelName) -> Iterator[None]:
        """Around a publication or a removal by this daemon: the directory's new times do not cause a new look."""
        known = not self._changed()
        try:
            yield
        finally:
            with self._one_at_a_time:
                self._note(name)
                if known:
                    with durable.store_faults("read", self._path):
                        self._times = times_of(os.stat(self._path))
                    self._in_doubt = True
                    self._next_look = max(self._next_look, self._clock() + _DOUBT_SECONDS)

    def _note(self, name: ModelName) -> None:
        if os.path.lexists(f"{self._path}/{name.stem}.json"):
            if self._spellings.setdefault(name.key, name.text) == name.text and name.stem not in self._stems:
                insort(self._names, name.text)
                self._stems.add(name.stem)
        elif self._spellings.get(name.key) == name.text:
            del self._spellings[name.key]
            self._names.remove(name.text)
            self._stems.discard(name.stem)

    def _changed(self) -> bool:
        with durable.store_faults("read", self._path):
            return times_of(os.stat(self._path)) != self._times

    def _look(self) -> None:
        self._check_root()
        with durable.store_faults("read", self._path):
            info = os.stat(self._path)
            started = time.time_ns()
            stems = {file[:-5] for file in os.listdir(self._path) if file.endswith(".json") and file[0] != "."}
        if stems != self._stems or self.refused:
            self._stems = stems
            self._sort_out(sorted(stems))
        self._times = times_of(info)
        self._in_doubt = not settled(info, started)

    def _sort_out(self, stems: list[str]) -> None:
        self._parsed = {stem: self._parsed.get(stem) or _parse(stem) for stem in stems}
        spellings: dict[str, str] = {}
        found: list[ModelName] = []
        refused: list[tuple[str, str]] = []
        for stem, name in self._parsed.items():
            if isinstance(name, str):
                refused.append((stem, name))
                continue
            found.append(name)
            # The spelling that was known first stays; of two new ones the first in sort order counts.
            if name.key not in spellings or self._spellings.get(name.key) == name.text:
                spellings[name.key] = name.text
        if len(found) > len(spellings):
            refused += [
                (name.stem, f"'{name.text}' is another spelling of '{spellings[name.key]}'")
                for name in found
                if spellings[name.key] != name.text
            ]
        self._names, self._spellings, self.refused = sorted(spellings.values()), spellings, tuple(refused)


def _parse(stem: str) -> ModelName | str:
    try:
        return ModelName.from_stem(stem)
    except InvalidName as fault:
        return fault.message
