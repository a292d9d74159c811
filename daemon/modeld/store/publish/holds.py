"""Names and blobs that must not be removed now. Every removal of a name or a blob checks here first.

Leases and pins register what they hold; running work holds the blobs that it relies on before a manifest does.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from modeld.store.digest import Digest
from modeld.store.names import ModelName
from modelwire.errors import InUse

NameHolder = Callable[[ModelName], str | None]
"""Describes the holder of the model of that name; None when it is free."""

BlobHolder = Callable[[], Iterable[Digest]]
"""The blobs that are held beyond those that manifests name."""


class Holds:
    """Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working: Counter[str] = Counter()
        self._names: list[NameHolder] = []
        self._blobs: list[BlobHolder] = []

    def register(self, *, names: NameHolder | None = None, blobs: BlobHolder | None = None) -> None:
        if names is not None:
            self._names.append(names)
        if blobs is not None:
            self._blobs.append(blobs)

    @contextmanager
    def relying_on(self, digest: Digest) -> Iterator[None]:
        """Around work that uses a blob which no manifest names yet: a sweep does not remove it meanwhile."""
        with self._lock:
            self._working[digest.hex] += 1
        try:
            yield
        finally:
            with self._lock:
                self._working[digest.hex] -= 1
                if not self._working[digest.hex]:
                    del self._working[digest.hex]

    def blobs(self) -> set[str]:
        """In hex, all blobs that are held by anything but a manifest."""
        with self._lock:
            held = set(self._working)
        for holder in self._blobs:
            held.update(digest.hex for digest in holder())
        return held

    def check_free(self, name: ModelName, doing: str) -> None:
        """`InUse`, with the holder, when the name is held."""
        for holder in self._names:
            held_by = holder(name)
            if held_by is not None:
                raise InUse(
                    f"'{name.text}' cannot be {doing}: it is held by {held_by}",
                    hint="Wait until it is released. `--force` removes it nevertheless.",
                    details={"name": name.text, "holder": held_by},
                )
