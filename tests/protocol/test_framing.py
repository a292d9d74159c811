"""Bytes to lines: the cap holds while bytes arrive, and a line costs one look at each byte however it comes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire.framing import LineBuffer, LineTooLong


def complete(buffer: LineBuffer) -> Iterator[bytes]:
    while (line := buffer.take()) is not None:
        yield line


def test_a_line_comes_out_without_its_newline() -> None:
    buffer = LineBuffer(10)
    buffer.feed(b"one\ntwo\n\nthr")
    assert list(complete(buffer)) == [b"one", b"two", b""]
    buffer.feed(b"ee\n")
    assert buffer.take() == b"three"
    assert buffer.take() is None


def test_a_line_of_the_cap_passes_with_and_without_its_newline() -> None:
    buffer = LineBuffer(4)
    buffer.feed(b"1234")
    assert buffer.take() is None
    buffer.feed(b"\n1234\n1234")
    assert list(complete(buffer)) == [b"1234", b"1234"]
    assert buffer.rest() == b"1234"


def test_one_byte_over_the_cap_is_refused_before_a_newline_comes() -> None:
    buffer = LineBuffer(4)
    for byte in b"1234":
        buffer.feed(bytes([byte]))
        assert buffer.take() is None
    buffer.feed(b"5")
    with pytest.raises(LineTooLong) as caught:
        buffer.take()
    assert caught.value.cap == 4


def test_one_byte_over_the_cap_is_refused_also_when_its_newline_came_with_it() -> None:
    buffer = LineBuffer(4)
    buffer.feed(b"12345\n")
    with pytest.raises(LineTooLong):
        buffer.take()


def test_a_peer_that_never_sends_a_newline_is_held_to_the_cap() -> None:
    buffer = LineBuffer(1000)
    for _ in range(10):
        buffer.feed(b"x" * 100)
        assert buffer.take() is None
    buffer.feed(b"x" * 100)
    with pytest.raises(LineTooLong):
        buffer.take()
    assert len(buffer) == 1100


def test_good_lines_ahead_of_one_that_is_too_long_are_taken_first() -> None:
    buffer = LineBuffer(4)
    buffer.feed(b"a\nb\n123456")
    assert buffer.take() == b"a"
    assert buffer.take() == b"b"
    with pytest.raises(LineTooLong):
        buffer.take()


class CountingBytes(bytearray):
    """Counts the bytes that are looked at in the search for a newline."""

    looked_at = 0

    def find(self, wanted: object, start: object = 0, end: object = None) -> int:
        assert isinstance(start, int)
        found = super().find(b"\n", start)
        self.looked_at += (len(self) if found < 0 else found + 1) - start
        return found


def test_a_line_that_trickles_in_costs_one_look_at_each_byte() -> None:
    buffer = LineBuffer(10_000)
    counting = CountingBytes()
    buffer._data = counting
    line = b"x" * 5000
    for byte in line + b"\n" + line + b"\n":
        buffer.feed(bytes([byte]))
        for taken in complete(buffer):
            assert taken == line
    assert counting.looked_at == 2 * (len(line) + 1)


def test_many_lines_at_once_cost_one_look_at_each_byte() -> None:
    buffer = LineBuffer(100)
    counting = CountingBytes()
    buffer._data = counting
    buffer.feed(b"0123456789\n" * 1000)
    assert sum(1 for _ in complete(buffer)) == 1000
    assert counting.looked_at == 11 * 1000


def test_a_buffer_whose_lines_are_taken_holds_no_memory() -> None:
    buffer = LineBuffer(1 << 20)
    tracemalloc.start()
    try:
        buffer.feed(b"x" * (1 << 20) + b"\n")
        assert buffer.take() is not None
        assert buffer.take() is None
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000


def test_the_length_is_what_is_not_yet_taken() -> None:
    buffer = LineBuffer(100)
    assert len(buffer) == 0
    buffer.feed(b"ab\ncd")
    assert len(buffer) == 5
    buffer.take()
    assert len(buffer) == 2


def test_the_rest_at_the_end_is_the_unterminated_line() -> None:
    buffer = LineBuffer(100)
    buffer.feed(b"whole\nhalf")
    assert list(complete(buffer)) == [b"whole"]
    assert buffer.rest() == b"half"
    assert buffer.rest() == b""
    assert len(buffer) == 0


def test_the_rest_is_bounded_too() -> None:
    buffer = LineBuffer(4)
    buffer.feed(b"12345")
    with pytest.raises(LineTooLong):
        buffer.rest()


def test_any_kind_of_buffer_can_be_fed() -> None:
    buffer = LineBuffer(100)
    buffer.feed(bytearray(b"a"))
    buffer.feed(memoryview(b"b\n"))
    assert buffer.take() == b"ab"


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b" ")), max_size=20),
    rest=st.binary(max_size=20).map(lambda line: line.replace(b"\n", b" ")),
    cuts=st.lists(st.integers(0, 500), max_size=20),
)
def test_lines_do_not_depend_on_how_the_bytes_are_cut(lines: list[bytes], rest: bytes, cuts: list[int]) -> None:
    whole = b"".join(line + b"\n" for line in lines) + rest
    edges = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    buffer = LineBuffer(20)
    taken: list[bytes] = []
    for start, end in pairwise(edges):
        buffer.feed(whole[start:end])
        taken += complete(buffer)
    assert taken == lines
    assert buffer.rest() == rest
