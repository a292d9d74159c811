"""Job ids rise, can be read back, and nothing else passes for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.jobs.ids import ALPHABET, Ids, made_at, new_id, parse
from modelwire.errors import InvalidRequest


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=30), st.integers(0, 2**79 - 1))
def test_ids_rise_whatever_the_clock_does(times: list[float], bits: int) -> None:
    clock = iter(times)
    ids = Ids(lambda: next(clock), lambda _: bits)
    made = [ids.new() for _ in times]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(parse(id_) == id_ for id_ in made)


def test_an_id_tells_when_it_was_made() -> None:
    assert made_at(Ids(lambda: 1763629200.125).new()) == 1763629200.125


def test_the_most_random_bits_still_leave_room_to_count_up() -> None:
    ids = Ids(lambda: 1.0, lambda bits: (1 << bits) - 1)
    first, second = ids.new(), ids.new()
    assert first < second
    assert made_at(first) == made_at(second) == 1.0


def test_the_process_has_one_rising_source() -> None:
    made = [new_id() for _ in range(2000)]
    assert made == sorted(set(made))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has 0 characters"),
        ("0" * 25, "has 25 characters"),
        ("0" * 1000, "has 1000 characters"),
        ("0" * 25 + "u", "has the character 'u'"),
        ("0" * 25 + "A", "has the character 'A'"),
        ("../" + "0" * 23, r"has the character '\.'"),
        ("8" + "0" * 25, "greater than any id"),
    ],
)
def test_what_is_no_id_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as refusal:
        parse(text)
    assert len(refusal.value.message) < 200


@given(st.text(ALPHABET, min_size=26, max_size=26).filter(lambda text: text[0] <= "7"))
def test_every_well_formed_text_is_an_id(text: str) -> None:
    assert parse(text) == text
    assert made_at(text) >= 0
