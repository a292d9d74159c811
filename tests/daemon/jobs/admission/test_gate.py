"""The bounds that the gate promises: limits, fairness, ageing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Hashable

import pytest

from modeld.jobs.admission import Gate, Limits, Owed, Ticket
from modelwire.errors import QueueFull
from rigs.manual_clock import ManualClock


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
