"""The values that pass through the gate: a job's ticket, its standing, and what the caller owes to other jobs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

Clock = Callable[[], float]
"""Seconds that never decrease; the origin does not matter."""


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
    """The place of a ticket right after its admission.

    `position` 0 means that it holds a running slot from this moment; n means that n - 1 jobs of its kind start before
    it. `moves` are the other tickets whose position its arrival changed, with the new position.
    """

    position: int
    order: int
    moves: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Owed:
    """What the caller has to do now: start these jobs, and give those their new position."""

    starts: tuple[str, ...] = ()
    moves: tuple[tuple[str, int], ...] = ()


NOTHING = Owed()


@dataclass(frozen=True, slots=True)
class KindSnapshot:
    limit: int
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    """In the order in which they start if no other ticket comes."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    running: int
    waiting: int
    waiting_limit: int
    kinds: Mapping[str, KindSnapshot]
