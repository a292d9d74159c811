"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.config import (
    Duration,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

# --- sizes and durations ---


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (12, 12),
        ("0", 0),
        ("1024", 1024),
        ("1B", 1),
        ("1K", 1024),
        ("1k", 1024),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("5GB", 5 * 10**9),
        ("5 gb", 5 * 10**9),
        ("1.5GiB", 3 << 29),
        ("16MiB", 16 << 20),
        ("2T", 2 << 40),
        ("1PiB", 1 << 50),
        ("922337203685477580", 922337203685477580),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size
    assert isinstance(parse_size(text), Size)


@pytest.mark.parametrize(
    "text",
    ["", "GB", "-1", "1iB", "1XB", "1 G B", "1e9", "0x10", "1,5GB", "1.5", "0.1K", "9" * 19, "9000P", "٣GB", "1GBs"],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a size|whole number of bytes"):
        parse_size(text)


@pytest.mark.parametrize("value", [True, 1.5, None, []])
def test_other_types_are_no_size(value: object) -> None:
    with pytest.raises(TypeError):
        parse_size(value)  # type: ignore[arg-type]


@given(st.integers(0, 2**63 - 1))
def test_a_size_reads_back(number: int) -> None:
    text = format_size(number)
    assert parse_size(int(text) if text.isdigit() else text) == number


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0),
        (2.5, 2.5),
        ("90", 90),
        ("0.5", 0.5),
        ("15m", 900),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("30d", 2592000),
        ("2w", 1209600),
        ("250ms", 0.25),
        ("1m250ms", 60.25),
        ("1.5h", 5400),
        ("0s", 0),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert isinstance(parse_duration(text), Duration)


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "30m1h", "1m1m", "1y", "1e3", "nan", "inf", "1h  30m", "36501d", "9" * 16, "1 h", "٣m"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


@pytest.mark.parametrize("value", [True, None, []])
def test_other_types_are_no_duration(value: object) -> None:
    with pytest.raises(TypeError):
        parse_duration(value)  # type: ignore[arg-type]


@given(st.integers(0, 36_500 * 86_400_000))
def test_a_duration_of_whole_milliseconds_reads_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000
