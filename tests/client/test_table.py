from __future__ import annotations

from modelclient.ctl.output import count, printable
from modelclient.ctl.table import columns, pairs


def test_things_are_counted_in_words() -> None:
    assert [count(n, "job") for n in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]


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
