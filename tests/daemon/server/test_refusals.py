from __future__ import annotations

from modeld.server.refusals import MOST_STRANGERS, QUIET_SECONDS, Refusals


def test_a_stranger_is_told_of_once_a_minute() -> None:
    refusals = Refusals()
    told = [refusals.worth_telling("unauthorized", 1000, 10.0 + n) for n in range(3)]
    assert told == [True, False, False]
    assert refusals.worth_telling("unauthorized", 1001, 12.0)
    assert refusals.worth_telling("unauthorized", 1000, 10.0 + QUIET_SECONDS)


def test_a_peer_over_its_limits_is_always_told_of() -> None:
    refusals = Refusals()
    assert all(refusals.worth_telling("queue_full", 0, 1.0) for _ in range(3))


def test_many_strangers_take_bounded_memory() -> None:
    refusals = Refusals()
    for uid in range(3 * MOST_STRANGERS):
        refusals.worth_telling("unauthorized", uid, 1.0)
    assert len(refusals._told) <= MOST_STRANGERS
