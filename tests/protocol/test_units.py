"""Sizes, rates and durations as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire.units import (
    Duration,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
    rounded_count,
    rounded_duration,
    rounded_size,
)


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
        (".5MB", 500_000),
        ("5.GB", 5 * 10**9),
        ("5Ki", 5 << 10),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size
    assert isinstance(parse_size(text), Size)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "GB",
        "-1",
        "1iB",
        "20MB/s",
        "1XB",
        "1 G B",
        "1e9",
        "0x10",
        "1,5GB",
        "1.5",
        "0.1K",
        "9" * 19,
        "9000P",
        "٣GB",
        "1GBs",
    ],
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


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("20MB/s", 20_000_000),
        ("20MB", 20_000_000),
        ("20M", 20 << 20),
        ("20mb", 20_000_000),
        ("20 MB/s", 20_000_000),
        ("500k", 500 << 10),
        ("1.5g", 3 << 29),
        (".5MB", 500_000),
        ("20MiB/s", 20 << 20),
        ("1000", 1000),
        ("1000B/s", 1000),
        ("none", 0),
        ("None", 0),
        ("0", 0),
        ("0MB/s", 0),
    ],
)
def test_rates_as_people_write_them(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "fast", "999", "0.5", "-5MB", "inf", "nan", "1e9", "20MX", "20ib", "9" * 20 + "G", "0.001k"]
)
def test_what_is_no_rate_says_what_one_is(text: str) -> None:
    with pytest.raises(ValueError, match="write 20MB for 20 megabytes a second, or none for no limit"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["20Mbps", "20mbps", "20 Mbit/s", "20Mbit", "1Gbps", "8KiBps"])
def test_bits_are_not_taken_for_bytes(text: str) -> None:
    with pytest.raises(ValueError, match=r"bytes, not bits: 100 Mbit/s are 12\.5MB"):
        parse_rate(text)


def test_a_unit_means_the_same_in_a_rate_and_in_a_size() -> None:
    for text in ("20M", "20MB", "20MiB", "500k", "500kB", "1.5G", "1000"):
        assert parse_rate(text) == parse_size(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (4_080_263_936, "4.08 GB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_400, "999 kB"),
        (999_600, "1.00 MB"),
        (3 * 10**18, "3000 PB"),
        (None, "?"),
    ],
)
def test_sizes_have_three_digits(count: int | None, text: str) -> None:
    assert rounded_size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (7, "7"),
        (999, "999"),
        (270_000_000, "270M"),
        (8_030_261_248, "8.03B"),
        (671 * 10**9, "671B"),
        (10**16, "10000T"),
    ],
)
def test_counts_are_written_as_the_names_of_models_have_them(count: int, text: str) -> None:
    assert rounded_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (61.2, "1 min 1 s"),
        (3600, "1 h"),
        (7260, "2 h 1 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations_are_as_exact_as_they_are_long(seconds: float, text: str) -> None:
    assert rounded_duration(seconds) == text
