"""Trees that no manifest needs any more: of models that other tools removed, and of replaced bytes."""

from __future__ import annotations

import os
from collections import Counter as Tally
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel

from modeld.store.catalog.records import Records
from modeld.store.disk.removal import Identity
from modeld.store.maintain.victims import Ages, Candidate, Links, span
from modeld.store.manifests import trees
from modeld.store.names import ModelName
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import NameChanges
from modelwire.errors import InvalidName, WireError

_AT_ONCE: Final = 50
"""Models between two turns of the event loop: a fraction of a millisecond."""


class LeftoverTrees:
    """For the event loop."""

    def __init__(self, name_changes: NameChanges, records: Records, holds: Holds) -> None:
        self._name_changes = name_changes
        self._index = name_changes.index
        self._layout = name_changes.layout
        self._records = records
        self._holds = holds

    async def leftovers(self, ages: Ages) -> list[Candidate]:
        return await self._name_changes.in_thread(partial(self._leftovers, ages))

    def _leftovers(self, ages: Ages) -> list[Candidate]:
        """Asks only for the models that have trees: a store of many models has few."""
        found: list[str] = []
        for stem, there in sorted(trees.there(self._layout).items()):
            wanted = self._wanted(stem)
            if wanted is None:
                found.append(f"{self._layout.trees}/{stem}")
            else:
                found += [path for path in sorted(there) if path != wanted]
        return [candidate for path in found if (candidate := self._candidate(path, ages)) is not None]

    def _candidate(self, path: str, ages: Ages) -> Candidate | None:
        try:
            info = os.lstat(path)
        except OSError:
            return None
        unused = ages.unused(info)
        if unused < ages.grace or self._holds.is_held(path):
            return None
        parts = tuple(path[len(self._layout.root) + 1 :].split("/"))
        return Candidate(
            "tree", parts, 0, 0, f"no model is shown by it, unchanged for {span(unused)}", Identity.of(info)
        )

    def links_in(self, candidates: Sequence[Candidate]) -> Links:
        """Blocking."""
        found: Tally[tuple[int, int]] = Tally()
        for candidate in candidates:
            for directory, _, names in os.walk("/".join((self._layout.root, *candidate.parts))):
                for name in names:
                    with suppress(OSError):
                        info = os.lstat(f"{directory}/{name}")
                        found[info.st_dev, info.st_ino] += 1
        return found

    async def remove(self, candidates: Sequence[Candidate], order: int, notes: list[str]) -> list[Candidate]:
        """Returns the removed ones. Each is checked again in the publisher's turn: a model may need it by now."""
        gone: list[Candidate] = []
        for candidate in candidates:
            path = "/".join((self._layout.root, *candidate.parts))
            async with self._name_changes.publisher.turn(order):
                if await self._name_changes.in_thread(partial(self._is_wanted, candidate)):
                    continue
                with anyio.CancelScope(shield=True):
                    try:
                        relinked = await self._name_changes.in_thread(partial(self._index.trees.remove, path))
                    except (WireError, OSError) as fault:
                        notes.append(f"{path} cannot be removed: {fault}")
                        continue
                    await self._records.record_relinked(relinked)
            gone.append(candidate)
        return gone

    def _is_wanted(self, candidate: Candidate) -> bool:
        """Its second part below the trees' directory names the model, a third one its content."""
        wanted, path = self._wanted(candidate.parts[2]), "/".join((self._layout.root, *candidate.parts))
        shown = wanted is not None and (wanted == path or wanted.startswith(f"{path}/"))
        return shown or self._holds.is_held(path)

    def _wanted(self, stem: str) -> str | None:
        """The tree that the model of that name is shown by."""
        try:
            entry = self._index.entry(ModelName.from_stem(stem))
        except InvalidName:
            return None
        return None if entry is None or entry.name.stem != stem else entry.tree
