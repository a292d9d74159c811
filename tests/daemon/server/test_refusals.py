from __future__ import annotations

from modeld.server.refusals import MOST_STRANGERS, QUIET_SECONDS, Refusals


def test_refusals_of_a_stranger_are_recorded_once_a_minute() -> None:
    refusals = Refusals()
    recorded = [refusals.should_record(1000, 10.0 + n, has_role=False) for n in range(3)]
    assert recorded == [True, False, False]
    assert refusals.should_record(1001, 12.0, has_role=False)
    assert refusals.should_record(1000, 10.0 + QUIET_SECONDS, has_role=False)


def test_refusals_of_a_peer_over_its_limits_are_always_recorded() -> None:
    refusals = Refusals()
    assert all(refusals.should_record(0, 1.0, has_role=True) for _ in range(3))


def test_many_strangers_take_bounded_memory() -> None:
    refusals = Refusals()
    for uid in range(3 * MOST_STRANGERS):
        refusals.should_record(uid, 1.0, has_role=False)
    assert len(refusals._recorded) <= MOST_STRANGERS
