"""The values that pass through the gate: what is asked, where it stands, what is owed for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

Clock = Callable[[], float]
"""Seconds that never go back; the origin does not matter."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One job at the gate. `order` 0 asks the gate for the next number; a restored job brings its own."""

    id: str
    peer: Hashable
    kind: str
    priority: int
    order: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a ticket stands right after it came in.

    `position` 0 means that it holds a running slot from this moment; n means that n - 1 jobs of
    its kind start before it. `moves` are the others whose position its arrival changed.
    """

    position: int
    order: int
    moves: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Owed:
    """What the caller has to do now: start these jobs, tell those their new position."""

    starts: tuple[str, ...] = ()
    moves: tuple[tuple[str, int], ...] = ()


NOTHING = Owed()


@dataclass(frozen=True, slots=True)
class KindSnapshot:
    limit: int
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    """In the order in which they would start if nothing else came."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    running: int
    waiting: int
    waiting_limit: int
    kinds: Mapping[str, KindSnapshot]
