"""What must hold in a store on which many clients work at once: a model of names, told what was asked and answered.

A name is a register. Each change of it is a write that took place between two ticks of one clock; a request whose
answer was lost leaves a write that may have taken place, or may still do. A look at the name must find what a write
left that no other one has certainly replaced. What it finds is a fact from then on.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

Content = tuple[str, ...] | None
"""The blobs of a model in the manifest's order; None for no model."""

OPEN: Final = 1 << 62
"""The end of a write that may still take place."""

_REMEMBERED: Final = 40
"""Of each name, the latest things that were asked, answered and seen: what the report of a lie shows."""


class Lie(AssertionError):
    """The daemon said, did or forgot what the model does not allow."""


@dataclass(eq=False, slots=True)
class Write:
    """One change of one name. `values` are what it may have written; `certain` once it surely took place."""

    name: str
    values: frozenset[Content]
    began: int
    what: str
    source: str | None = None
    """Of a copy or a move whose outcome is not known: it writes what this name stands for at that moment."""

    ended: int = OPEN
    certain: bool = False

    def __str__(self) -> str:
        end = "…" if self.ended == OPEN else str(self.ended)
        values = " or ".join([*map(brief, self.values), *([f"what {self.source} is"] if self.source else [])])
        return f"[{self.began}, {end}] {self.what}: {values}{'' if self.certain else ' (perhaps)'}"


def brief(content: Content) -> str:
    return "nothing" if content is None else "+".join(blob.removeprefix("sha256:")[:8] for blob in content)


@dataclass(frozen=True, slots=True)
class _Look:
    """It found the value at a moment between its ticks: of what had ended before it began, nothing else remains."""

    began: int
    ended: int
    value: Content

    def leaves(self, write: Write, value: Content) -> bool:
        return value == self.value or write.ended >= self.began


@dataclass(slots=True)
class _Register:
    writes: list[Write]
    looks: list[_Look] = field(default_factory=list)
    told: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def standing(self, since: int, until: int) -> list[Write]:
        """The writes of which one is the last at some moment between the two ticks."""
        replaced = max((write.began for write in self.writes if write.certain and write.ended <= since), default=-1)
        return [write for write in self.writes if write.ended >= replaced and write.began <= until]

    def forget(self, oldest: int) -> None:
        """Drops what no look can find that began at this tick or later."""
        if len(self.writes) > 1:
            self.writes[:] = self.standing(oldest, OPEN)
        past = [look for look in self.looks if look.ended <= oldest]
        if past:
            for write in self.writes:
                write.values = frozenset(v for v in write.values if all(look.leaves(write, v) for look in past))
            self.writes[:] = [write for write in self.writes if write.values or write.source is not None]
            self.looks[:] = [look for look in self.looks if look.ended > oldest]


class Model:
    """For one thread. A name that nobody has written to stands for nothing."""

    def __init__(self) -> None:
        self._ticks = itertools.count(1)
        self._names: dict[str, _Register] = {}
        self._under_way: set[int] = set()
        self._copies: set[int] = set()
        """When the copies and moves began whose outcome is still open: they may write what their source was then."""

        self.looks = 0

    def now(self) -> int:
        return next(self._ticks)

    @property
    def names(self) -> Collection[str]:
        return self._names.keys()

    @contextmanager
    def step(self) -> Iterator[int]:
        """Around everything that ends in a look, or in an error that the model judges: the tick at which it began."""
        began = self.now()
        self._under_way.add(began)
        try:
            yield began
        finally:
            self._under_way.discard(began)

    # -- changes

    def begin(self, name: str, values: Iterable[Content], what: str, source: str | None = None) -> Write:
        """A change is asked for: until it is `done`, `undone` or `over` it may take place at any moment."""
        write = Write(name, frozenset(values), self.now(), what, source)
        if source is not None:
            self._copies.add(write.began)
        self._register(name).writes.append(write)
        return write

    def done(self, write: Write, wrote: Content | str) -> None:
        """It took place, before now. `wrote` is what, or one blob of it."""
        register, values = self._register(write.name), self._values(write)
        values = {value for value in values if value == wrote or (isinstance(wrote, str) and wrote in (value or ()))}
        if not values:
            shown = brief((wrote,) if isinstance(wrote, str) else wrote)
            self.lie(write.name, f"{write.what} has written {shown}", write.source)
        self._copies.discard(write.began)
        write.values, write.source, write.certain = frozenset(values), None, True
        write.ended = min(write.ended, self.now())
        if write not in register.writes:
            register.writes.append(write)
        register.told.append(str(write))
        self._forget(register)

    def undone(self, write: Write, why: str) -> None:
        """It never took place, and will not."""
        register = self._register(write.name)
        self._copies.discard(write.began)
        if write in register.writes:
            register.writes.remove(write)
        register.told.append(f"[{write.began}, {self.now()}] {write.what}: not done, {why}")

    def over(self, write: Write, why: str) -> None:
        """It took place before now or never will; nobody knows."""
        self._copies.discard(write.began)
        write.values, write.source = frozenset(self._values(write)), None
        write.ended = min(write.ended, self.now())
        self._register(write.name).told.append(f"{write} {why}")

    def open_writes(self) -> list[Write]:
        return [write for register in self._names.values() for write in register.writes if write.ended == OPEN]

    # -- looks

    def possible(self, name: str, since: int) -> set[Content]:
        """What a look that began at this tick and ends now may find."""
        return self._possible(name, since, self.now(), frozenset())

    def may_be_absent(self, name: str, since: int) -> bool:
        return None in self.possible(name, since)

    def may_differ(self, name: str, since: int, content: Content) -> bool:
        """Whether the name may stand for another model than this one."""
        return bool(self.possible(name, since) - {None, content})

    def saw(self, name: str, since: int, value: Content, what: str) -> None:
        """A look that began at `since` and ends now found this: it must be possible, and is a fact from now on."""
        self.looks += 1
        if value not in self.possible(name, since):
            self.lie(name, f"{what} since {since} finds {brief(value)}")
        register = self._register(name)
        register.looks.append(_Look(since, self.now(), value))
        register.told.append(f"[{since}, {self.now()}] {what}: found {brief(value)}")
        self._forget(register)

    def saw_blob(self, name: str, since: int, blob: str, what: str) -> None:
        """The same for a look that shows one blob of the model only."""
        fitting = {content for content in self.possible(name, since) if content is not None and blob in content}
        if not fitting:
            self.lie(name, f"{what} since {since} finds {brief((blob,))}")
        if len(fitting) == 1:
            self.saw(name, since, fitting.pop(), what)

    def lie(self, name: str, what: str, source: str | None = None) -> None:
        lines = [f"{name}: {what}, which cannot be. Allowed by", *self._history(name)]
        raise Lie("\n  ".join(lines if source is None else [*lines, f"of {source}:", *self._history(source)]))

    def _history(self, name: str) -> list[str]:
        register = self._register(name)
        return [*map(str, register.writes), "last known:", *register.told]

    def _possible(self, name: str, since: int, until: int, asked: frozenset[str]) -> set[Content]:
        register = self._register(name)
        looks = [look for look in register.looks if look.ended <= since]
        return {
            value
            for write in register.standing(since, until)
            for value in self._values(write, asked | {name})
            if all(look.leaves(write, value) for look in looks)
        }

    def _values(self, write: Write, asked: frozenset[str] = frozenset()) -> set[Content]:
        """A copy of a copy of itself writes what the others of the circle write."""
        if write.source is None or write.source in asked:
            return set(write.values)
        until = min(write.ended, self.now())
        return set(write.values) | (self._possible(write.source, write.began, until, asked) - {None})

    def _forget(self, register: _Register) -> None:
        register.forget(min((*self._under_way, *self._copies, self.now())))

    def _register(self, name: str) -> _Register:
        register = self._names.get(name)
        if register is None:
            nothing = Write(name, frozenset((None,)), 0, "the beginning", ended=0, certain=True)
            register = self._names[name] = _Register([nothing])
        return register
