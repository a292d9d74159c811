"""Names and bytes that must not be removed now. Every removal of a name, a blob or an unfinished file asks here first.

Leases and pins register what they hold. Running work holds the blobs that it relies on before a manifest does, and its
partial and staged files from before they exist: no age, which a step of the clock can change, decides about them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from modeld.store.digest import Digest
from modeld.store.names import ModelName
from modelwire.errors import InUse
from modelwire.values import Holder


class NameHold(NamedTuple):
    """Why a name is held: by whom, in words, and each holder for programs."""

    by: str
    holders: Sequence[Holder] = ()


NameHolder = Callable[[ModelName], NameHold | None]
"""None when the name is free."""

BlobHolder = Callable[[], Iterable[Digest]]
"""The blobs that are held beyond those that manifests name."""

PartialHolder = Callable[[], Iterable["Held"]]
"""Partial downloads that nothing works on now but that an open job will go on with."""

Held = Digest | str
"""A digest stands for its blob and its partial download, a path for the file or directory and all below it."""


class Holds:
    """Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._working: Counter[Held] = Counter()
        self._removing: set[Held] = set()
        self._names: list[NameHolder] = []
        self._blobs: list[BlobHolder] = []
        self._partials: list[PartialHolder] = []

    def register(
        self,
        *,
        names: NameHolder | None = None,
        blobs: BlobHolder | None = None,
        partials: PartialHolder | None = None,
    ) -> None:
        if names is not None:
            self._names.append(names)
        if blobs is not None:
            self._blobs.append(blobs)
        if partials is not None:
            self._partials.append(partials)

    # -- running work

    @contextmanager
    def relying_on(self, *things: Held) -> Iterator[None]:
        """Around work that uses these: a sweep does not begin to remove them meanwhile. It never waits, so the event
        loop may call it; a thread calls `until_settled` before it looks whether they are there."""
        with self._changed:
            self._working.update(things)
        try:
            yield
        finally:
            with self._changed:
                for thing in things:
                    self._working[thing] -= 1
                    if not self._working[thing]:
                        del self._working[thing]
                self._changed.notify_all()

    def until_settled(self, *things: Held) -> None:
        """Blocks while a sweep removes one of them, which it began before the caller held it."""
        with self._changed:
            self._changed.wait_for(lambda: not any(_among(thing, self._removing) for thing in things))

    # -- removals

    @contextmanager
    def removing(self, thing: Held, wait: float = 0.0) -> Iterator[bool]:
        """Around the removal of one thing, from the last moment at which work can still hold it. False: it is held by
        running work, also after `wait` seconds, and must not be removed."""
        with self._changed:
            free = self._changed.wait_for(lambda: not _among(thing, self._working), wait)
            if free:
                self._removing.add(thing)
        try:
            yield free
        finally:
            if free:
                with self._changed:
                    self._removing.discard(thing)
                    self._changed.notify_all()

    def is_held(self, thing: Held) -> bool:
        """Whether running work relies on it."""
        with self._changed:
            return _among(thing, self._working)

    def partials(self) -> set[Held]:
        """The partial downloads of open jobs that do not run."""
        return {held for holder in self._partials for held in holder()}

    def blobs(self) -> set[str]:
        """In hex, all blobs that are held by anything but a manifest."""
        with self._changed:
            held = {thing.hex for thing in self._working if isinstance(thing, Digest)}
        for holder in self._blobs:
            held.update(digest.hex for digest in holder())
        return held

    def check_free(self, name: ModelName, doing: str) -> None:
        """`InUse`, with the holders, when the name is held."""
        for holder in self._names:
            hold = holder(name)
            if hold is not None:
                forced = " `--force` removes the name, and keeps the bytes until then." if doing == "removed" else ""
                raise InUse(
                    f"'{name.text}' cannot be {doing}: it is held by {hold.by}",
                    hint=f"Wait until it is released.{forced}",
                    details={"name": name.text, "holders": [msgspec.to_builtins(each) for each in hold.holders]},
                )


def _among(thing: Held, things: Iterable[Held]) -> bool:
    """Whether it is one of them or, for a path, lies below or above one. A job has thousands of digests at the most and
    few paths."""
    if isinstance(thing, Digest):
        return thing in things
    paths = (other for other in things if isinstance(other, str))
    return any(thing == other or thing.startswith(f"{other}/") or other.startswith(f"{thing}/") for other in paths)
