"""`pattern` against Python's own expressions, and what it costs."""

from __future__ import annotations

import re
import sys
from types import FrameType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeld.store.manifests.pattern import MOST_POSITIONS, BadPattern, Pattern

if TYPE_CHECKING:
    from _typeshed import TraceFunction

ITEMS = st.sampled_from(
    ["a", "b", "B", ".", r"\.", "-", "[ab]", "[^a]", "[a-c]", "[]b]", r"[\]x]", "[a-]", "[|$]", "[^]^]"]
)
REPEATS = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,}", "{,2}", "{0,3}", "{2,3}", "{0}"])
CHAINS = st.builds(
    lambda start, items, end: start + "".join(items) + end,
    st.sampled_from(["", "^"]),
    st.lists(st.builds(str.__add__, ITEMS, REPEATS), max_size=6),
    st.sampled_from(["", "$"]),
)
PATTERNS = st.lists(CHAINS, min_size=1, max_size=3).map("|".join)


@settings(max_examples=800, deadline=None)
@given(PATTERNS, st.text(alphabet="abcABx.-]|$^", max_size=12))
def test_it_finds_what_python_finds(pattern: str, text: str) -> None:
    assert Pattern(pattern).found_in(text) == (re.search(pattern, text, re.IGNORECASE | re.ASCII) is not None)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(a)", "no groups"),
        ("a)", "no groups"),
        (r"\d", "a backslash stands only before"),
        ("a\\", "a backslash stands only before"),
        ("*a", "nothing precedes '*'"),
        ("a|+", "nothing precedes '+'"),
        ("a*?", "follows another repetition"),
        ("a{2}{3}", "follows another repetition"),
        ("a^b", "'^' stands only at the start"),
        ("a$b", "'$' stands only at the end"),
        ("[ab", "is not closed"),
        ("[b-a]", "the range b-a is empty"),
        ("[ä]", "only ASCII"),
        ("a{3,2}", "wrong way round"),
        ("a{", "needs a backslash"),
        ("a]", "needs a backslash"),
        ("a{9999}", f"more than {MOST_POSITIONS}"),
        ("a{900}|b{900}", f"more than {MOST_POSITIONS}"),
    ],
)
def test_a_pattern_of_another_kind_is_refused_with_the_reason(pattern: str, why: str) -> None:
    with pytest.raises(BadPattern, match=re.escape(why)):
        Pattern(pattern)


class Steps:
    """Counts the lines that `pattern` runs."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Steps:
        def step(_frame: FrameType, event: str, _: object) -> TraceFunction:
            self.count += event == "line"
            return step

        sys.settrace(step)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)


@pytest.mark.parametrize("pattern", ["a*a*a*b", "a*" * 50, "a" + "a?" * 49 + "b", ".*.*.*.*.*x$", "a{500}"])
def test_the_work_grows_with_the_text_alone(pattern: str) -> None:
    tried = Pattern(pattern)
    tried.found_in("ab")
    with Steps() as short:
        tried.found_in("c" + "a" * 100)
    with Steps() as long:
        tried.found_in("c" + "a" * 1000)
    assert long.count < 11 * short.count + 100
