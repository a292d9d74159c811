"""Trees that no manifest needs any more: of models that other tools removed, and of replaced bytes."""

from __future__ import annotations

import os
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel

from modeld.store.catalog.records import Records
from modeld.store.disk.removal import Identity
from modeld.store.maintain.victims import Ages, Candidate, Links, span
from modeld.store.manifests import trees
from modeld.store.manifests.index import Index
from modeld.store.names import ModelName
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import NameChanges
from modelwire.errors import InvalidName, WireError

_AT_ONCE: Final = 50
"""Models between two turns of the event loop: a fraction of a millisecond."""


class LeftoverTrees:
    """For the event loop."""

    def __init__(
        self, name_changes: NameChanges, records: Records, holds: Holds, at_sites: Mapping[str, Index]
    ) -> None:
        """`at_sites` are the models of each site, by the directory of its trees."""
        self._at_sites = at_sites
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
        tops = [self._layout.trees]
        for site in sorted(trees.there(self._layout.site_trees)):
            top = f"{self._layout.site_trees}/{site}"
            (tops if top in self._at_sites else found).append(top)
        for top in tops:
            for stem, there in sorted(trees.there(top).items()):
                shown = self._shows(f"{top}/{stem}")
                found += [path for path in sorted(there) if not self._shows(path)] if shown else [f"{top}/{stem}"]
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
        path = "/".join((self._layout.root, *candidate.parts))
        return self._shows(path) or self._holds.is_held(path)

    def _shows(self, path: str) -> bool:
        """Whether a model is shown by this tree, or by one below this directory. A site is not asked: its disk may
        hang, and what was seen last decides."""
        if path in self._at_sites:
            return True
        for top, index in self._at_sites.items():
            if path.startswith(f"{top}/"):
                return index.may_show(path[len(top) + 1 :].partition("/")[0], path)
        wanted = self._wanted(path.removeprefix(f"{self._layout.trees}/").partition("/")[0])
        return wanted is not None and f"{wanted}/".startswith(f"{path}/")

    def _wanted(self, stem: str) -> str | None:
        """The tree that the model of that name is shown by."""
        try:
            entry = self._index.entry(ModelName.from_stem(stem))
        except InvalidName:
            return None
        return None if entry is None or entry.name.stem != stem else entry.tree
