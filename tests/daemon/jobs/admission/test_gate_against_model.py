"""The gate against a naive model of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from modeld.jobs.admission import Gate, Limits, Owed, Standing, Ticket
from modelwire.errors import QueueFull
from rigs.manual_clock import ManualClock

KINDS = ("bytes", "verify", "quick")
LIMITS = Limits(waiting_total=9, waiting_per_peer=4, running={"bytes": 1, "verify": 2}, running_default=3, ageing=10.0)


@dataclass
class Waiting:
    id: str
    peer: Hashable
    kind: str
    priority: int
    since: float
    arrival: int


class NaiveGate:
    """The same promises in the most obvious way: scan everything, choose one, repeat."""

    def __init__(self, limits: Limits, clock: ManualClock) -> None:
        self.limits, self.clock = limits, clock
        self.waiting: list[Waiting] = []
        self.running: dict[str, str] = {}
        self.peers: dict[str, Hashable] = {}
        self.aside: dict[str, tuple[Hashable, str]] = {}
        """Started, waiting for something outside: their peers and kinds."""
        self.served: dict[tuple[str, Hashable], int] = {}
        self.counter = 0
        self.alone = False
        self.came_back: set[str] = set()
        """Started once, waiting for a slot again."""

    def _stamp(self, key: tuple[str, Hashable]) -> None:
        self.counter += 1
        self.served[key] = self.counter

    def _forget_idle_peers(self) -> None:
        present = {(w.kind, w.peer) for w in self.waiting}
        self.served = {key: turn for key, turn in self.served.items() if key in present}

    def free(self, kind: str) -> int:
        """For jobs that have not started yet."""
        return 0 if self.alone else self.slots(kind)

    def slots(self, kind: str) -> int:
        return self.limits.running_of(kind) - sum(k == kind for k in self.running.values())

    def full_for(self, peer: Hashable) -> bool:
        waiting = [*(w.peer for w in self.waiting), *(of for of, _ in self.aside.values())]
        mine, total = waiting.count(peer), self.limits.waiting_total
        equal_part = total // len({*waiting, peer})
        return mine >= self.limits.waiting_per_peer or (len(waiting) >= total and mine >= equal_part)

    def admit(self, id_: str, peer: Hashable, kind: str, priority: int) -> None:
        self.peers[id_] = peer
        if self.free(kind) > 0:
            self.running[id_] = kind
            return
        self.wait(id_, peer, kind, priority)

    def wait(self, id_: str, peer: Hashable, kind: str, priority: int) -> None:
        if (kind, peer) not in self.served:
            self._stamp((kind, peer))
        self.counter += 1
        self.waiting.append(Waiting(id_, peer, kind, priority, self.clock.now, self.counter))

    def first(self, kind: str, waiting: list[Waiting], served: dict[tuple[str, Hashable], int]) -> Waiting:
        def rank(w: Waiting) -> tuple[bool, int, int, int]:
            level = max(1, w.priority - int((self.clock.now - w.since) // self.limits.ageing))
            mine = sum(k == kind and self.peers[id_] == w.peer for id_, k in self.running.items())
            return mine >= max(1, self.limits.running_of(kind) // 2), level, served[w.kind, w.peer], w.arrival

        return min((w for w in waiting if w.kind == kind), key=rank)

    def order(self, kind: str) -> list[str]:
        waiting, served, counter = list(self.waiting), dict(self.served), self.counter
        ids = []
        while any(w.kind == kind for w in waiting):
            chosen = self.first(kind, waiting, served)
            waiting.remove(chosen)
            counter += 1
            served[kind, chosen.peer] = counter
            ids.append(chosen.id)
        return ids

    def remove(self, id_: str) -> tuple[str, ...]:
        self.running.pop(id_, None)
        self.aside.pop(id_, None)
        self.came_back.discard(id_)
        self.waiting = [w for w in self.waiting if w.id != id_]
        self._forget_idle_peers()
        return self.fill()

    def step_aside(self, id_: str) -> tuple[str, ...]:
        self.aside[id_] = self.peers[id_], self.running.pop(id_)
        return self.fill()

    def come_back(self, id_: str, priority: int) -> tuple[str, ...]:
        peer, kind = self.aside.pop(id_)
        self.came_back.add(id_)
        self.wait(id_, peer, kind, priority)
        return self.fill()

    def fill(self, kinds: Iterable[str] = KINDS) -> tuple[str, ...]:
        started = []
        for kind in kinds:
            while self.slots(kind) > 0 and any(self.may_start(id_) for id_ in self.order(kind)):
                next_ = next(id_ for id_ in self.order(kind) if self.may_start(id_))
                chosen = next(w for w in self.waiting if w.id == next_)
                self.waiting.remove(chosen)
                self.came_back.discard(next_)
                self._stamp((kind, chosen.peer))
                self._forget_idle_peers()
                self.running[chosen.id] = kind
                started.append(chosen.id)
        return tuple(started)

    def may_start(self, id_: str) -> bool:
        return not self.alone or id_ in self.came_back


class GateAgainstModel(RuleBasedStateMachine):
    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.gate = Gate(LIMITS, self.clock)
        self.model = NaiveGate(LIMITS, self.clock)
        self.number = 0
        self.orders: list[int] = []
        self.started: set[str] = set()
        self.positions: dict[str, int] = {}
        self.kind_of: dict[str, str] = {}
        self.priority_of: dict[str, int] = {}
        self.came_back: set[str] = set()
        self.touched: str | None = None

    def _ticket(self, peer: int, kind: str, priority: int) -> Ticket:
        self.number += 1
        id_ = f"job{self.number}"
        self.kind_of[id_] = kind
        self.priority_of[id_] = priority
        return Ticket(id_, peer, kind, priority)

    def _came_in(self, ticket: Ticket, standing: Standing) -> None:
        self.orders.append(standing.order)
        self.model.admit(ticket.id, ticket.peer, ticket.kind, ticket.priority)
        assert ticket.id not in dict(standing.moves)
        self.positions.update(standing.moves)
        self.positions[ticket.id] = standing.position
        if standing.position == 0:
            self.started.add(ticket.id)
        self.touched = ticket.kind

    def _owed(self, owed: Owed, expected_starts: tuple[str, ...], kind: str | None) -> None:
        assert owed.starts == expected_starts
        for id_ in owed.starts:
            assert id_ not in self.started or id_ in self.came_back, "started twice"
            self.started.add(id_)
            self.came_back.discard(id_)
            self.positions[id_] = 0
        for id_, position in owed.moves:
            assert self.positions[id_] != position, "a move that changes no position"
            self.positions[id_] = position
        self.touched = kind

    @rule(target=tickets, peer=st.integers(1, 4), kind=st.sampled_from(KINDS), priority=st.integers(1, 5))
    def offer(self, peer: int, kind: str, priority: int):  # type: ignore[no-untyped-def]
        ticket = self._ticket(peer, kind, priority)
        refuse = self.model.free(kind) <= 0 and self.model.full_for(peer)
        self.touched = None
        if refuse:
            with pytest.raises(QueueFull) as refusal:
                self.gate.offer(ticket)
            assert refusal.value.details["depth"] == len(self.model.waiting) + len(self.model.aside)
            assert refusal.value.retry_after_ms is not None
            assert 100 <= refusal.value.retry_after_ms <= 60_000
            assert ticket.id not in self.gate
            return multiple()
        self._came_in(ticket, self.gate.offer(ticket))
        return ticket.id

    @rule(target=tickets, peer=st.integers(1, 4), kind=st.sampled_from(KINDS), priority=st.integers(1, 5))
    def restore(self, peer: int, kind: str, priority: int) -> str:
        ticket = self._ticket(peer, kind, priority)
        self._came_in(ticket, self.gate.restore(ticket))
        return ticket.id

    @rule(id_=consumes(tickets))
    def end(self, id_: str) -> None:
        if id_ in self.model.running or id_ in self.model.aside or id_ in self.came_back:
            owed = self.gate.finish(id_)
        else:
            with pytest.raises(ValueError, match="before it started"):
                self.gate.finish(id_)
            owed = self.gate.withdraw(id_)
        self._owed(owed, self.model.remove(id_), self.kind_of[id_])
        del self.positions[id_]
        assert self.gate.withdraw(id_) == Owed()
        assert self.gate.finish(id_) == Owed()
        assert self.gate.prioritize(id_, 1) == Owed()

    @rule(id_=consumes(tickets))
    def withdraw(self, id_: str) -> None:
        self._owed(self.gate.withdraw(id_), self.model.remove(id_), self.kind_of[id_])
        del self.positions[id_]

    @rule(id_=tickets)
    def step_aside(self, id_: str) -> None:
        self.touched = None
        if id_ in self.model.running:
            self._owed(self.gate.step_aside(id_), self.model.step_aside(id_), self.kind_of[id_])
            assert not self.gate.holds_slot(id_)

    @rule(id_=tickets)
    def come_back(self, id_: str) -> None:
        self.touched = None
        if id_ in self.model.aside:
            self.came_back.add(id_)
            self.positions[id_] = 0
            owed = self.gate.come_back(id_)
            self._owed(owed, self.model.come_back(id_, self.priority_of[id_]), self.kind_of[id_])
            assert self.gate.holds_slot(id_) == (id_ in owed.starts)

    @rule(id_=tickets, priority=st.integers(-2, 9))
    def prioritize(self, id_: str, priority: int) -> None:
        for waiting in self.model.waiting:
            if waiting.id == id_:
                waiting.priority = max(1, min(5, priority))
        self._owed(self.gate.prioritize(id_, priority), (), self.kind_of[id_])
        if id_ in self.model.running:
            self.touched = None

    @rule(limit=st.integers(1, 3))
    def set_limits(self, limit: int) -> None:
        limits = Limits(LIMITS.waiting_total, LIMITS.waiting_per_peer, {"bytes": limit, "verify": 2}, 3, LIMITS.ageing)
        self.model.limits = limits
        owed = self.gate.set_limits(limits)
        self._owed(owed, self.model.fill(), None)

    @rule(id_=tickets)
    def leave_alone(self, id_: str) -> None:
        if id_ in self.model.running:
            others = self.gate.leave_alone(id_)
            started = self.model.running.keys() | self.model.aside.keys() | self.model.came_back
            assert sorted(others) == sorted(started - {id_})
            self.model.alone = True
        self.touched = None

    @rule()
    def leave_together(self) -> None:
        self.model.alone = False
        kinds = tuple(self.gate.snapshot().kinds)
        self._owed(self.gate.leave_together(), self.model.fill(kinds), None)
        assert self.gate.leave_together() == Owed()

    @rule(seconds=st.floats(0.1, 25.0))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.touched = None

    @invariant()
    def nobody_is_lost_or_doubled(self) -> None:
        snapshot = self.gate.snapshot()
        running = [id_ for kind in snapshot.kinds.values() for id_ in kind.running]
        waiting = [id_ for kind in snapshot.kinds.values() for id_ in kind.waiting]
        assert sorted(running) == sorted(self.model.running)
        assert sorted(waiting) == sorted(w.id for w in self.model.waiting)
        assert snapshot.waiting == len(waiting) + len(self.model.aside)
        assert len(self.gate) == len(running) + len(waiting) + len(self.model.aside)
        assert self.orders == sorted(set(self.orders))

    @invariant()
    def the_order_is_the_models(self) -> None:
        for kind, seen in self.gate.snapshot().kinds.items():
            assert list(seen.waiting) == self.model.order(kind)
            may_start = any(self.model.may_start(id_) for id_ in seen.waiting)
            assert not (may_start and len(seen.running) < seen.limit), "a free slot was left empty"

    @invariant()
    def known_positions_are_true_after_a_call(self) -> None:
        if self.touched is not None:
            waiting = self.gate.snapshot().kinds[self.touched].waiting
            assert {id_: self.positions[id_] for id_ in waiting} == {id_: n for n, id_ in enumerate(waiting, 1)}


TestGateAgainstModel = GateAgainstModel.TestCase
TestGateAgainstModel.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
