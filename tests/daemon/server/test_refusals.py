from __future__ import annotations

from modeld.server.refusals import MOST_STRANGERS, QUIET_SECONDS, Refusals


def test_a_stranger_is_told_of_once_a_minute() -> None:
    refusals = Refusals()
    told = [refusals.worth_telling(1000, 10.0 + n, has_role=False) for n in range(3)]
    assert told == [True, False, False]
    assert refusals.worth_telling(1001, 12.0, has_role=False)
    assert refusals.worth_telling(1000, 10.0 + QUIET_SECONDS, has_role=False)


def test_a_peer_over_its_limits_is_always_told_of() -> None:
    refusals = Refusals()
    assert all(refusals.worth_telling(0, 1.0, has_role=True) for _ in range(3))


def test_many_strangers_take_bounded_memory() -> None:
    refusals = Refusals()
    for uid in range(3 * MOST_STRANGERS):
        refusals.worth_telling(uid, 1.0, has_role=False)
    assert len(refusals._told) <= MOST_STRANGERS
