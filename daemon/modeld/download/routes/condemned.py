"""Sources that gave wrong bytes for a digest: they are not asked for it again until they have another file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from modeld.store.digest import Digest


@dataclass(frozen=True, slots=True)
class Condemnation:
    source: str
    digest: str
    """64 hex digits: the digest that was expected."""

    validator: str | None
    """Of the wrong version. None: a change cannot be seen."""


class Condemned:
    """`known` and `on_change` let the caller store it: `on_change` is called, from byte threads, with each condemnation
    that is new (True) or no longer holds (False)."""

    def __init__(
        self,
        known: Iterable[Condemnation] = (),
        on_change: Callable[[Condemnation, bool], None] = lambda _condemnation, _holds: None,
    ) -> None:
        self._lock = threading.Lock()
        self._by_key = {(each.source, each.digest): each for each in known}
        self._on_change = on_change

    def holds(self, source: str, digest: Digest | None, validator: str | None) -> bool:
        if digest is None:
            return False
        with self._lock:
            found = self._by_key.get((source, digest.hex))
            if found is None:
                return False
            if found.validator == validator or validator is None:
                return True
            del self._by_key[source, digest.hex]
        self._on_change(found, False)
        return False

    def condemn(self, source: str, digest: Digest, validator: str | None) -> None:
        condemnation = Condemnation(source, digest.hex, validator)
        with self._lock:
            self._by_key[source, digest.hex] = condemnation
        self._on_change(condemnation, True)

    def pardon(self, condemnation: Condemnation) -> None:
        """Removes exactly this one; a newer one of the same source and digest stays."""
        with self._lock:
            key = (condemnation.source, condemnation.digest)
            if self._by_key.get(key) == condemnation:
                del self._by_key[key]
