"""Answers that are known to be true without a look at the disk: since they were found, nothing that they depend on has
changed.

A disk that hangs holds a stat for as long as it likes, and the event loop with it. So the loop answers from here, or
the request waits for a thread that looks. The thread first watches the manifest, the blob and every directory and
symbolic link that their paths lead through, then looks: what changes afterwards is in the queue of the watches before
the change is complete.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from modeld.platform import watches
from modeld.store.disk.layout import Layout
from modeld.store.names import ModelName
from modelwire.errors import InvalidName
from modelwire.values import Resolved

MOST: Final = 2_000
"""Models, those in use; each takes two watches, two kilobytes of the kernel's memory."""


class _Known:
    """The answers that rest on the watches of one queue, whose numbers mean nothing in another queue. For the event
    loop, except where it says otherwise."""

    def __init__(self, watching: watches.Watches, seen: int, manifest_changed: Callable[[str], None]) -> None:
        self.watches = watching
        self._manifest_changed = manifest_changed
        self.unbroken = object()
        """Another one after changes of manifests that were not noticed."""
        self.seen = seen
        """Changes with each change; no other queue ever has the same number."""
        self.answers: dict[str, Resolved] = {}
        self.placed: dict[str, Placed] = {}
        self.names: defaultdict[int, set[str]] = defaultdict(set)
        """By watch: the models whose blob it watches."""
        self.manifests: set[int] = set()
        """The watches of the directory of manifests: one, until it is replaced."""
        self.fanouts: set[int] = set()
        """The watches of the directories that blobs share."""

    def take_change(self, change: watches.Change) -> None:
        if change.watch in self.manifests and change.name:
            name = _name_of(change.name)
            self.drop(name)
            self._manifest_changed(name)
        elif change.watch < 0 or (change.watch in self.fanouts and not change.name):
            self.drop_all()
            if change.watch < 0:
                self.unbroken = object()
        else:
            for name in list(self.names.get(change.watch, ())):
                self.drop(name)

    def drop_all(self) -> None:
        for name in list(self.placed):
            self.drop(name)
        # All that is shared is watched anew: the paths may lead elsewhere, and what they led to is of no interest.
        for watch in list(self.fanouts):
            self.watches.remove(watch)
        self.fanouts.clear()

    def drop(self, name: str) -> None:
        self.answers.pop(name, None)
        placed = self.placed.pop(name, None)
        for watch in () if placed is None else placed.own:
            self.names[watch].discard(name)
            if not self.names[watch]:
                del self.names[watch]
                self.watches.remove(watch)

    def close(self) -> None:
        """For any thread. The answers go first: watches that are closed report no change."""
        self.answers.clear()
        self.watches.close()


@dataclass(frozen=True, slots=True)
class Placed:
    """The watches of one model that are its own, those of its blob."""

    name: str
    own: tuple[int, ...]
    known: _Known
    """To whose queue the watches belong."""


class Current:
    """For the event loop, except `place`, `leave` and `look_again`."""

    def __init__(self, layout: Layout, *, watched: bool = True) -> None:
        """Blocks. What is not `watched` always takes a look; then it does not block."""
        self._layout = layout
        self._known: _Known | None = None
        self._changes = itertools.count()
        self._closed = not watched
        self._lock = threading.Lock()
        self._looking_again = threading.Lock()
        self.changed: Callable[[str], None] = lambda _: None
        """Called with the name of each manifest that has changed, once the manifests are watched."""
        self.look_again()

    def answer(self, name: str) -> Resolved | None:
        """The answer for exactly this spelling of a name; None when only a look can tell. Never waits."""
        known = self._known
        if known is None:
            return None
        if known.watches.changed():
            self._take_changes(known)
        return known.answers.get(name)

    def seen(self) -> int:
        """Another number after each change. Call it before `place`."""
        known = self._known
        if known is None:
            return -1
        if known.watches.changed():
            self._take_changes(known)
        return known.seen

    @property
    def unbroken(self) -> object | None:
        """While it is the same, what `watch_manifests` returned. Never waits; call `seen` before it."""
        known = self._known
        return None if known is None else known.unbroken

    def watch_manifests(self) -> object | None:
        """Has each change of a manifest reported from now on to `changed`, until `unbroken` is another one; None when
        the system does not report all of them. Blocks; for any thread."""
        known = self._known
        if known is None:
            return None
        unbroken = known.unbroken
        try:
            known.manifests.add(known.watches.reach(self._layout.manifests_dir, watches.ENTRIES))
        except OSError:  # as in `place`
            return None
        return unbroken

    def place(self, name: ModelName, blob: str) -> Placed | None:
        """Watches a model, before the look whose answer is to be admitted; None when it cannot be watched. Blocks; for
        any thread."""
        known = self._known
        if known is None:
            return None
        placing = known.watches
        own: list[int] = []
        try:
            directory = os.path.dirname(blob)
            known.manifests.add(placing.reach(self._layout.manifests_dir, watches.ENTRIES))
            placing.reach(self._layout.blobs_dir, watches.ITSELF)
            known.fanouts.add(placing.place(os.path.dirname(directory), watches.ITSELF))
            own.append(placing.place(directory, watches.ITSELF))
            own.append(placing.place(blob, watches.CONTENT))
            watches.require_local(blob)
        except OSError:  # a path that leads nowhere, no right to read a directory, no watch left, another filesystem
            self.leave(Placed(name.text, tuple(own), known))
            return None
        return Placed(name.text, tuple(own), known)

    def admit(self, placed: Placed, resolved: Resolved, seen: int) -> None:
        """Keeps the answer that a look found after `place`, unless something has changed since `seen`."""
        known = placed.known
        if self.seen() != seen or known is not self._known:
            self.leave(placed)
            return
        if placed.name in known.answers:
            return
        while len(known.placed) >= MOST:
            known.drop(next(iter(known.placed)))
        known.answers[placed.name] = resolved
        known.placed[placed.name] = placed
        for watch in placed.own:
            known.names[watch].add(placed.name)

    def leave(self, placed: Placed | None) -> None:
        """Removes watches whose model is not admitted. For any thread: should another look rely on one of them, its
        removal is a change that this look has missed."""
        if placed is None:
            return
        for watch in placed.own:
            if watch not in placed.known.names:
                placed.known.watches.remove(watch)

    def forget(self) -> None:
        """Drops all answers."""
        known = self._known
        if known is not None:
            known.seen = next(self._changes)
            known.drop_all()

    def look_again(self) -> None:
        """Drops all answers, and watches the directories that are at the paths now: for when this daemon has put others
        there. What was placed before is not admitted. Blocks; for any thread."""
        with self._looking_again:
            self._replace(None)
            if not self._closed:
                directories = (self._layout.manifests_dir, self._layout.blobs_dir)
                watching = watches.watches_for(*directories)
                self._replace(
                    None if watching is None else _Known(watching, next(self._changes), self._manifest_changed)
                )

    def close(self) -> None:
        """Idempotent."""
        self._closed = True
        self._replace(None)

    def _replace(self, known: _Known | None) -> None:
        with self._lock:
            before, self._known = self._known, known
            if self._closed and known is not None:  # while the new ones were opened
                before, self._known = known, None
        if before is not None:
            before.close()

    def _manifest_changed(self, name: str) -> None:
        if name:
            self.changed(name)

    def _take_changes(self, known: _Known) -> None:
        for change in known.watches.changes():
            known.seen = next(self._changes)
            known.take_change(change)


def _name_of(file: str) -> str:
    try:
        return ModelName.from_stem(file.removesuffix(".json")).text
    except InvalidName:
        return ""
