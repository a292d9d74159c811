"""The gate against a naive model, and the bounds that it promises: limits, fairness, ageing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from modeld.jobs.admission import Gate, Limits, Owed, Standing, Ticket
from modelwire.errors import QueueFull

KINDS = ("bytes", "verify", "quick")
LIMITS = Limits(waiting_total=9, waiting_per_peer=4, running={"bytes": 1, "verify": 2}, running_default=3, ageing=10.0)


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


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

    def _stamp(self, key: tuple[str, Hashable]) -> None:
        self.counter += 1
        self.served[key] = self.counter

    def _forget_idle_peers(self) -> None:
        present = {(w.kind, w.peer) for w in self.waiting}
        self.served = {key: turn for key, turn in self.served.items() if key in present}

    def free(self, kind: str) -> int:
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
        self.waiting = [w for w in self.waiting if w.id != id_]
        self._forget_idle_peers()
        return self.fill()

    def step_aside(self, id_: str) -> tuple[str, ...]:
        self.aside[id_] = self.peers[id_], self.running.pop(id_)
        return self.fill()

    def come_back(self, id_: str, priority: int) -> tuple[str, ...]:
        peer, kind = self.aside.pop(id_)
        self.wait(id_, peer, kind, priority)
        return self.fill()

    def fill(self) -> tuple[str, ...]:
        started = []
        for kind in KINDS:
            while self.free(kind) > 0 and any(w.kind == kind for w in self.waiting):
                chosen = self.first(kind, self.waiting, self.served)
                self.waiting.remove(chosen)
                self._stamp((kind, chosen.peer))
                self._forget_idle_peers()
                self.running[chosen.id] = kind
                started.append(chosen.id)
        return tuple(started)


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
            assert not (seen.waiting and len(seen.running) < seen.limit), "a free slot was left empty"

    @invariant()
    def known_positions_are_true_after_a_call(self) -> None:
        if self.touched is not None:
            waiting = self.gate.snapshot().kinds[self.touched].waiting
            assert {id_: self.positions[id_] for id_ in waiting} == {id_: n for n, id_ in enumerate(waiting, 1)}


TestGateAgainstModel = GateAgainstModel.TestCase
TestGateAgainstModel.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


def filled(limits: Limits, tickets: int, *, peer: Hashable = "flood", priority: int = 1) -> tuple[Gate, ManualClock]:
    clock = ManualClock()
    gate = Gate(limits, clock)
    for number in range(tickets):
        gate.offer(Ticket(f"f{number}", peer, "bytes", priority))
    return gate, clock


ONE_AT_A_TIME = Limits(running={"bytes": 1}, ageing=30.0)


def test_peers_that_fill_the_queue_keep_no_other_out_of_it() -> None:
    """As many of them as together have all places. The queue stays bounded, whoever comes."""
    gate, _ = filled(ONE_AT_A_TIME, 1)
    admitted = Counter[str]()
    for peer in (f"peer{number}" for number in range(200)):
        with contextlib.suppress(QueueFull):
            for number in range(20):
                gate.offer(Ticket(f"{peer}-{number}", peer, "bytes", 1))
                admitted[peer] += 1
    assert [admitted[f"peer{number}"] for number in (3, 4, 9, 63, 64)] == [16, 12, 6, 1, 0]
    assert gate.snapshot().waiting < 4 * ONE_AT_A_TIME.waiting_total


def test_the_lowest_priority_starts_although_the_highest_keep_coming() -> None:
    gate, clock = filled(ONE_AT_A_TIME, 1)
    gate.offer(Ticket("patient", "other", "bytes", 5))
    running, starts = "f0", 0
    for number in range(1, 1000):
        clock.now += 1.0
        gate.offer(Ticket(f"f{number}", f"newcomer{number}", "bytes", 1))
        (running,) = gate.finish(running).starts
        starts += 1
        if running == "patient":
            break
    assert running == "patient"
    # Four levels of 30 s, one start a second; at the top only one flood ticket came before it.
    assert 4 * 30 <= starts <= 4 * 30 + 2


def test_at_the_top_it_waits_for_one_ticket_of_each_other_peer_at_most() -> None:
    gate, clock = filled(ONE_AT_A_TIME, 1)
    peers = [f"peer{n}" for n in range(10)]
    for peer in peers:
        for turn in range(3):
            gate.offer(Ticket(f"{peer}-{turn}", peer, "bytes", 1))
    gate.offer(Ticket("patient", "other", "bytes", 5))
    clock.now += 4 * 30.0
    running, starts = "f0", 0
    while running != "patient":
        (running, *more) = gate.finish(running).starts
        assert not more
        starts += 1
        gate.offer(Ticket(f"again{starts}", peers[starts % 10], "bytes", 1))
    assert starts <= len(peers) + 1


def test_peers_take_turns_whatever_the_length_of_their_queues() -> None:
    gate, _ = filled(ONE_AT_A_TIME, 17)
    for number in range(4):
        gate.offer(Ticket(f"a{number}", "second", "bytes", 1))
    running, seen = "f0", []
    for _ in range(8):
        (running,) = gate.finish(running).starts
        seen.append(running[0])
    assert seen == ["f", "a"] * 4


def test_a_stream_of_new_peers_does_not_pass_the_one_who_waits() -> None:
    gate, _ = filled(ONE_AT_A_TIME, 2, priority=3)
    running = "f0"
    for number in range(5):
        gate.offer(Ticket(f"new{number}", f"peer{number}", "bytes", 3))
    (running,) = gate.finish(running).starts
    assert running == "f1"


def test_positions_follow_arrivals_of_higher_priority() -> None:
    gate, _ = filled(ONE_AT_A_TIME, 1)
    assert gate.offer(Ticket("low", "p", "bytes", 4)).position == 1
    urgent = gate.offer(Ticket("urgent", "q", "bytes", 1))
    assert urgent.position == 1
    assert urgent.moves == (("low", 2),)
    assert gate.prioritize("low", 1).moves == (("low", 1), ("urgent", 2))


def test_kinds_do_not_block_each_other() -> None:
    gate, _ = filled(Limits(running={"bytes": 1}, running_default=1), 5)
    assert gate.offer(Ticket("v", "flood", "verify", 5)).position == 0


def test_the_refusal_names_the_limit_and_says_when_to_return() -> None:
    gate, clock = filled(ONE_AT_A_TIME, 17)
    with pytest.raises(
        QueueFull, match="16 jobs of this user are waiting already, and waiting_per_peer is 16"
    ) as one_peer:
        gate.offer(Ticket("x", "flood", "bytes", 1))
    assert one_peer.value.retryable
    assert one_peer.value.details == {"depth": 16, "limit": 64, "peer_depth": 16, "peer_limit": 16}
    assert one_peer.value.retry_after_ms == 1000
    for number in range(48):
        gate.offer(Ticket(f"o{number}", number // 16, "bytes", 3))
    for number in range(64 // 5):
        gate.offer(Ticket(f"n{number}", "newcomer", "bytes", 1))
    with pytest.raises(QueueFull, match="76 jobs are waiting already and the limit is 64"):
        gate.offer(Ticket("x", "newcomer", "bytes", 1))
    assert gate.offer(Ticket("free lane", "flood", "verify", 1)).position == 0
    running = "f0"
    for number in range(20):
        clock.now += 2.5
        (running,) = gate.finish(running).starts
        gate.restore(Ticket(f"r{number}", "newcomer", "bytes", 5))
    with pytest.raises(QueueFull) as paced:
        gate.offer(Ticket("x", "newcomer", "bytes", 1))
    assert 2000 <= (paced.value.retry_after_ms or 0) <= 2600
    clock.now += 10_000
    with pytest.raises(QueueFull) as stalled:
        gate.offer(Ticket("x", "newcomer", "bytes", 1))
    assert stalled.value.retry_after_ms == 60_000


def test_orders_go_on_after_the_highest_restored_one() -> None:
    gate = Gate(ONE_AT_A_TIME, ManualClock(), first_order=7)
    assert gate.offer(Ticket("a", "p", "bytes", 3)).order == 7
    assert gate.restore(Ticket("b", "p", "bytes", 3, order=41)).order == 41
    assert gate.offer(Ticket("c", "p", "bytes", 3)).order == 42


def test_the_same_id_twice_is_a_bug_of_the_caller() -> None:
    gate, _ = filled(ONE_AT_A_TIME, 2)
    for id_ in ("f0", "f1"):
        with pytest.raises(ValueError, match="already"):
            gate.offer(Ticket(id_, "p", "bytes", 3))


@pytest.mark.parametrize(
    "wrong", [{"running_default": 0}, {"running": {"bytes": 0}}, {"ageing": 0.0}, {"waiting_total": -1}]
)
def test_limits_that_would_stop_everything_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="is"):
        Limits(**wrong)  # type: ignore[arg-type]


def test_one_peer_gets_no_more_than_half_of_the_slots_while_another_waits() -> None:
    gate, _ = filled(Limits(running={"bytes": 4}, waiting_per_peer=99), 9)
    gate.offer(Ticket("late", "other", "bytes", 5))
    gate.offer(Ticket("later", "other", "bytes", 5))
    assert gate.snapshot().kinds["bytes"].waiting[:2] == ("late", "later"), "also before a higher priority"
    assert gate.finish("f0").starts == ("late",)
    assert gate.finish("f1").starts == ("later",)
    assert gate.finish("f2").starts == ("f4",), "both have half of them"


def test_the_latest_jobs_above_a_share_are_named_when_another_has_waited() -> None:
    gate, clock = filled(Limits(running={"bytes": 4}, waiting_per_peer=99), 5)
    clock.now += 60
    assert gate.above_share("bytes", 10.0) == (), "the one that waits is of the same peer"
    gate.offer(Ticket("late", "other", "bytes", 5))
    assert gate.above_share("bytes", 10.0) == ()
    clock.now += 10
    assert gate.above_share("bytes", 10.0) == ("f3", "f2", "f1", "f0")
    gate.finish("f3")
    assert gate.above_share("bytes", 0.0) == (), "the other runs, and has none waiting"


def test_a_job_that_steps_aside_counts_as_waiting_and_its_slot_serves_another() -> None:
    gate, _ = filled(Limits(running={"bytes": 1}, waiting_per_peer=2), 2)
    assert gate.step_aside("f0").starts == ("f1",)
    gate.offer(Ticket("f2", "flood", "bytes", 1))
    with pytest.raises(QueueFull):
        gate.offer(Ticket("f3", "flood", "bytes", 1))
    assert gate.come_back("f0").starts == ()
    assert gate.finish("f1").starts == ("f2",)
    assert gate.finish("f2").starts == ("f0",)
    assert gate.holds_slot("f0")
    assert (gate.finish("f0"), len(gate), gate.snapshot().waiting) == (Owed(), 0, 0)
