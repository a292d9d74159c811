"""Makes room: removes the least recently used models that can be fetched again, or reports which these are.

A model stays that is pinned, in use, younger or used more recently than the grace period, or of bytes that no source is
known to have: the caller asks the sources. What frees nothing stays too: its bytes are those of models that stay, or a
program has them open.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import anyio
from msgspec.structs import replace

from modeld.platform import files
from modeld.store.blobs.quarantine import kept
from modeld.store.catalog.history import rfc3339
from modeld.store.catalog.uses import Uses
from modeld.store.digest import Digest
from modeld.store.disk.space import Space
from modeld.store.maintain.sweep import Sweeper
from modeld.store.manifests.entries import Entry
from modeld.store.publish import pinning
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import NameChanges
from modeld.store.publish.renaming import Renaming
from modelwire.errors import InUse, WireError
from modelwire.units import rounded_duration, rounded_size
from modelwire.values import Eviction, EvictionPlan, NotEvicted, Removed

AT_ONCE: Final = 8
"""Sources that are asked at the same time."""

SECONDS: Final = 20.0
"""For all of them: a client waits for the plan."""

SHOWN: Final = 1000
"""Models that stay, of one answer."""


class Fetchable(NamedTuple):
    """What is known of a model's source: its address, and why the bytes cannot be fetched again, if so."""

    source: str
    why_not: str | None = None


AskSource = Callable[[Entry], Awaitable[Fetchable]]


@dataclass(frozen=True, slots=True)
class _Model:
    entry: Entry
    used: float
    blobs: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Survey:
    models: Sequence[_Model]
    """Without those that have no bytes; the least recently used first."""

    sizes: dict[str, int]
    """What the removal of each blob gives back."""

    namers: Counter[str]


class _Freed:
    """What the removal of some models gives back: the blobs that no other model names."""

    def __init__(self, survey: _Survey) -> None:
        self._survey = survey
        self._gone: Counter[str] = Counter()
        self.bytes = 0

    def add(self, model: _Model) -> int:
        """Counts one more model; returns what its removal gives back after that of the others."""
        self._gone.update(model.blobs)
        more = sum(self._size(blob) for blob in model.blobs)
        self.bytes += more
        return more

    def needs(self, model: _Model) -> bool:
        return any(self._size(blob) for blob in model.blobs)

    def _size(self, blob: str) -> int:
        return self._survey.sizes.get(blob, 0) if self._gone[blob] >= self._survey.namers[blob] else 0


class Evictor:
    """For the event loop."""

    def __init__(
        self,
        name_changes: NameChanges,
        renaming: Renaming,
        sweeper: Sweeper,
        *,
        space: Space,
        uses: Uses,
        holds: Holds,
        grace: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name_changes = name_changes
        self._index = name_changes.index
        self._layout = name_changes.layout
        self._renaming = renaming
        self._sweeper = sweeper
        self._space = space
        self._uses = uses
        self._holds = holds
        self._grace = grace
        self._clock = clock
        self.alone = anyio.Lock()
        """Around a plan and what is done by it: two jobs that need room must not count on the same bytes."""

    async def available(self) -> int:
        return await self._name_changes.in_thread(lambda: self._space.available)

    async def plan(self, needed: int, ask: AskSource) -> EvictionPlan:
        in_thread = self._name_changes.in_thread
        available = await self.available()
        missing = needed - available
        plan = EvictionPlan(needed_bytes=needed, available_bytes=available, enough=missing <= 0)
        if missing <= 0:
            return plan
        notes = await in_thread(self._without_a_model)
        if unreadable := (await in_thread(self._index.marks.look)).unreadable:
            note = f"no blob may go while {unreadable[0]} cannot be read, for it may name any of them"
            return replace(plan, notes=(*notes, note))
        entries = [entry async for entry in self._index.entries()]
        survey = await in_thread(partial(self._survey, entries))
        chosen: list[tuple[_Model, str]] = []
        stay: list[NotEvicted] = []
        freed = _Freed(survey)
        with anyio.move_on_after(SECONDS) as limit:
            async for model, source, reason in self._judged(survey, ask):
                if reason is not None:
                    stay.append(_staying(model, reason, survey))
                    continue
                chosen.append((model, source))
                freed.add(model)
                if freed.bytes >= missing:
                    break
        if limit.cancelled_caught:
            notes.append(f"not all sources have answered within {SECONDS:g} s, so their models stay")
        return replace(
            plan,
            evict=tuple(_evictions([each for each in chosen if freed.needs(each[0])], survey)),
            stay=tuple(stay[:SHOWN]),
            frees_bytes=freed.bytes,
            enough=freed.bytes >= missing,
            notes=tuple(notes),
        )

    def _without_a_model(self) -> list[str]:
        """Blocking: what would free bytes at once, and take no model."""
        notes: list[str] = []
        with suppress(WireError):
            if size := kept(self._layout).size_bytes:
                notes.append(f"`modelctl quarantine rm` frees {rounded_size(size)} of bad bytes")
        waiting = 0
        for digest in map(Digest, self._name_changes.unnamed.noted()):
            with suppress(OSError):
                waiting += os.lstat(self._layout.blob(digest)).st_size
        if waiting:
            notes.append(f"`modelctl sweep --grace 0` frees {rounded_size(waiting)} that lost their names lately")
        return notes

    async def carry_out(self, plan: EvictionPlan) -> list[Removed]:
        """Removes the models of the plan, with their bytes. One that was used or replaced since the plan stays."""
        gone: list[Removed] = []
        for each in plan.evict:
            with suppress(WireError):  # in use, used, replaced, pinned or gone by now
                gone.append(await self._renaming.remove(each.name, check=partial(self._check_unused_since, each)))
        blobs = {Digest.parse(blob) for removed in gone for blob in removed.blobs}
        if blobs:
            await self._sweeper.sweep_blobs(blobs, grace=0.0)
        return gone

    def _check_unused_since(self, planned: Eviction, entry: Entry) -> None:
        """Blocking. Asking the sources takes up to 20 s, in which the name may have got bytes that no source has."""
        with suppress(OSError):
            blobs = [] if entry.manifest is None else [digest.hex for digest in entry.manifest.blobs()]
            if rfc3339(self._used(entry)) == planned.used_at and not self._is_open(blobs):
                return
        raise InUse(f"'{planned.name}' cannot be evicted: it was used or named since", details={"name": planned.name})

    def _used(self, entry: Entry) -> float:
        """Blocking. When the model was last used, or got its bytes since: what was used before were others."""
        return max(self._uses.of(entry.name.text) or 0.0, os.lstat(entry.path).st_mtime)

    async def _judged(self, survey: _Survey, ask: AskSource) -> AsyncIterator[tuple[_Model, str, str | None]]:
        """Each model with its source, and with the reason for which it stays."""
        now = self._clock()
        for first in range(0, len(survey.models), AT_ONCE):
            some = survey.models[first : first + AT_ONCE]
            answers = await self._answers(some, ask, now)
            for model, (source, why_not) in zip(some, answers, strict=True):
                yield model, source, why_not

    async def _answers(self, some: Sequence[_Model], ask: AskSource, now: float) -> list[Fetchable]:
        """Of the sources, for the models that nothing else keeps."""
        answers = [Fetchable("", self._why_kept(model, now)) for model in some]

        async def judge(number: int, model: _Model) -> None:
            if await self._name_changes.in_thread(partial(self._is_open, model.blobs)):
                answers[number] = Fetchable("", "a program has it open, so its removal would free nothing")
            else:
                answers[number] = await ask(model.entry)

        async with anyio.create_task_group() as tasks:
            for number, model in enumerate(some):
                if answers[number].why_not is None:
                    tasks.start_soon(judge, number, model)
        return answers

    def _why_kept(self, model: _Model, now: float) -> str | None:
        try:
            pinning.check_not_pinned(model.entry)
            self._holds.check_free(model.entry.name, "evicted")
        except InUse as fault:
            return fault.message.partition(": ")[2]
        if (ago := now - model.used) < self._grace:
            return f"it was used or named {rounded_duration(ago)} ago, less than the grace period"
        return None

    def _is_open(self, blobs: Iterable[str]) -> bool:
        """Blocking. Whether a program has one of them open: it may have mapped what it asked for long ago."""
        for blob in blobs:
            with suppress(OSError):
                if files.is_open_elsewhere(self._layout.blob(Digest(blob))):
                    return True
        return False

    def _survey(self, entries: Sequence[Entry]) -> _Survey:
        """Blocking."""
        held = self._holds.blobs()
        models: list[_Model] = []
        sizes: dict[str, int] = {}
        namers: Counter[str] = Counter()
        for entry in entries:
            if entry.manifest is None:
                continue
            blobs = frozenset(digest.hex for digest in entry.manifest.blobs())
            namers.update(blobs)
            if not entry.look().has_bytes:
                continue
            for digest in entry.manifest.blobs():
                linked, path = digest in self._index.trees.linked, self._layout.blob(digest)
                with suppress(OSError):
                    sizes[digest.hex] = 0 if linked or digest.hex in held else os.lstat(path).st_size
            with suppress(OSError):
                models.append(_Model(entry, self._used(entry), blobs))
        models.sort(key=lambda model: (model.used, model.entry.name.text))
        return _Survey(models, sizes, namers)


def _evictions(chosen: Sequence[tuple[_Model, str]], survey: _Survey) -> Iterator[Eviction]:
    freed = _Freed(survey)
    for model, source in chosen:
        name = model.entry.name.text
        yield Eviction(name=name, frees_bytes=freed.add(model), used_at=rfc3339(model.used), source=source)


def _staying(model: _Model, reason: str, survey: _Survey) -> NotEvicted:
    size = sum(survey.sizes.get(blob, 0) for blob in model.blobs)
    return NotEvicted(name=model.entry.name.text, size_bytes=size, reason=reason)
