from __future__ import annotations

import pytest

from modelclient.ctl import figures
from modelclient.ctl.output import printable
from modelclient.ctl.table import columns, pairs


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
    assert figures.size(count) == text


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
    assert figures.duration(seconds) == text


def test_things_are_counted_in_words() -> None:
    assert [figures.count(n, "job") for n in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]


def test_columns_are_aligned_and_never_cut() -> None:
    made = columns(("NAME", "SIZE", "STATE"), [("a", "5 B", "ready"), ("long" * 30, "12.0 GB", "")], right=("SIZE",))
    heading, first, second = made.splitlines()
    assert heading == "NAME" + " " * 118 + "   SIZE  STATE"
    assert first == "a" + " " * 121 + "    5 B  ready"
    assert second == "long" * 30 + "  12.0 GB"


def test_pairs_leave_out_what_says_nothing() -> None:
    assert pairs([("state", "ready"), ("license", None), ("reason", ""), ("x", "y")]) == "state  ready\nx      y\n"


def test_nothing_that_is_shown_can_play_with_the_terminal() -> None:
    assert printable("a\x1b[31m\n\x7f\x9bé\udcff") == "a\\x1b[31m\\x0a\\x7f\\x9bé\\udcff"
    assert "\x1b" not in columns(("A",), [("\x1b[2J",)]) + pairs([("a", "\x1b")])
