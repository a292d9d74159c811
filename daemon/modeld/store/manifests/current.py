"""Answers that are known to be true without a look at the disk: since they were found, nothing that they depend on has
changed.

A disk that hangs holds a stat for as long as it likes, and the event loop with it. So the loop answers from here, or
the request waits for a thread that looks. The thread first watches the manifest, the blob and every directory above
them, then looks: what changes afterwards is in the queue of the watches before the change is complete.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from modeld.platform import watches
from modeld.store.disk.layout import Layout
from modeld.store.names import ModelName
from modelwire.errors import InvalidName
from modelwire.values import Resolved

MOST: Final = 2_000
"""Models, those in use; each takes two watches, two kilobytes of the kernel's memory."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The watches of one model that are its own, those of its blob."""

    name: str
    own: tuple[int, ...]


class Current:
    """For the event loop, except `place` and `leave`."""

    def __init__(self, layout: Layout, *, watched: bool = True) -> None:
        """Blocks. What is not `watched` always takes a look; then it does not block."""
        self._layout = layout
        directories = (layout.root, layout.manifests_dir, layout.blobs_dir)
        self._watches = watches.watches_for(*directories) if watched else None
        self._answers: dict[str, Resolved] = {}
        self._placed: dict[str, Placed] = {}
        self._names: defaultdict[int, set[str]] = defaultdict(set)
        """By watch: the models whose blob it watches."""
        self._manifests: set[int] = set()
        """The watches of the directory of manifests: one, until it is replaced."""
        self._shared: set[int] = set()
        """The watches that all models share: of the directories above them."""
        self._seen = 0
        """Changes up to now."""

    def answer(self, name: str) -> Resolved | None:
        """The answer for exactly this spelling of a name; None when only a look can tell. Never waits."""
        if self._watches is None:
            return None
        self.seen()
        return self._answers.get(name)

    def seen(self) -> int:
        """The number of changes up to now. Call it before `place`."""
        if self._watches is not None and self._watches.changed():
            self._take_changes(self._watches)
        return self._seen

    def place(self, name: ModelName, blob: str) -> Placed | None:
        """Watches a model, before the look whose answer is to be admitted; None when it cannot be watched. Blocks; for
        any thread."""
        placing = self._watches
        if placing is None:
            return None
        own: list[int] = []
        try:
            directory = os.path.dirname(blob)
            for path in _above(directory):
                self._shared.add(placing.place(path, watches.ITSELF))
            self._manifests.add(placing.place(self._layout.manifests_dir, watches.ENTRIES))
            own.append(placing.place(directory, watches.ITSELF))
            own.append(placing.place(blob, watches.CONTENT))
        except OSError:  # a link in the path, no right to read a directory, no watch left
            self.leave(Placed(name.text, tuple(own)))
            return None
        return Placed(name.text, tuple(own))

    def admit(self, placed: Placed, resolved: Resolved, seen: int) -> None:
        """Keeps the answer that a look found after `place`, unless something has changed since `seen`."""
        if self._watches is None or placed.name in self._answers:
            return
        if self.seen() != seen:
            self.leave(placed)
            return
        while len(self._answers) >= MOST:
            self._drop(next(iter(self._answers)), self._watches)
        self._answers[placed.name] = resolved
        self._placed[placed.name] = placed
        for watch in placed.own:
            self._names[watch].add(placed.name)

    def leave(self, placed: Placed | None) -> None:
        """Removes watches whose model is not admitted. For any thread: should another look rely on one of them, its
        removal is a change that this look has missed."""
        leaving = self._watches
        if placed is None or leaving is None:
            return
        for watch in placed.own:
            if watch not in self._names:
                leaving.remove(watch)

    def forget(self) -> None:
        """Drops all answers."""
        self._seen += 1
        if self._watches is not None:
            self._drop_all(self._watches)

    def look_again(self) -> None:
        pass

    def close(self) -> None:
        """Idempotent."""
        if self._watches is not None:
            self._watches.close()
            self._watches = None

    def _take_changes(self, changed: watches.Watches) -> None:
        for change in changed.changes():
            self._seen += 1
            if change.watch in self._manifests and change.name:
                self._drop(_name_of(change.name), changed)
            elif change.watch < 0 or change.watch in self._shared or change.watch in self._manifests:
                self._drop_all(changed)
            else:
                for name in list(self._names.get(change.watch, ())):
                    self._drop(name, changed)

    def _drop_all(self, changed: watches.Watches) -> None:
        for name in list(self._placed):
            self._drop(name, changed)

    def _drop(self, name: str, changed: watches.Watches) -> None:
        self._answers.pop(name, None)
        placed = self._placed.pop(name, None)
        for watch in () if placed is None else placed.own:
            self._names[watch].discard(name)
            if not self._names[watch]:
                del self._names[watch]
                changed.remove(watch)


def _above(path: str) -> list[str]:
    """The directories above a path, from the top, without the root of all, which nothing can move."""
    found = []
    while (path := os.path.dirname(path)) != os.path.dirname(path):
        found.append(path)
    return found[::-1]


def _name_of(file: str) -> str:
    try:
        return ModelName.from_stem(file.removesuffix(".json")).text
    except InvalidName:
        return ""
