"""Job ids rise, whatever the clock does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.jobs.ids import ALPHABET, LENGTH, Ids, new_id


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=30), st.integers(0, 2**79 - 1))
def test_ids_rise_whatever_the_clock_does(times: list[float], bits: int) -> None:
    clock = iter(times)
    ids = Ids(lambda: next(clock), lambda _: bits)
    made = [ids.new() for _ in times]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(len(id_) == LENGTH and set(id_) <= set(ALPHABET) for id_ in made)


def test_the_most_random_bits_still_leave_room_to_count_up() -> None:
    ids = Ids(lambda: 1.0, lambda bits: (1 << bits) - 1)
    first, second = ids.new(), ids.new()
    assert first < second
    assert first[:10] == second[:10], "the digits of the time"


def test_the_process_has_one_rising_source() -> None:
    made = [new_id() for _ in range(2000)]
    assert made == sorted(set(made))


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_ids_rise_over_a_restart_whatever_the_clock_has_done(before: float, after: float) -> None:
    earlier = Ids(lambda: before).new()
    ids = Ids(lambda: after)
    ids.go_on_after(earlier)
    assert earlier < ids.new()


@pytest.mark.parametrize("text", ["", "x", "u" * LENGTH, "z" * LENGTH])
def test_what_is_no_id_changes_nothing(text: str) -> None:
    ids = Ids(lambda: 1.0, lambda _: 0)
    expected = ids.new()
    again = Ids(lambda: 1.0, lambda _: 0)
    again.go_on_after(text)
    assert again.new() == expected
