"""The filter and the order of a list: all conditions must hold. Pure; an error names the faulty part.

size>1GB, format=gguf name~^llama    a comma or a space between conditions means: and
used>30d                             not used for more than 30 days
-size                                the largest first
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, get_args

from modeld.store.manifests.pattern import BadPattern, Pattern
from modelwire.errors import InvalidRequest
from modelwire.units import parse_duration, parse_size
from modelwire.values import ModelView
from modelwire.vocabulary import ModelState

MAX_TEXT: Final = 1000
MAX_PATTERN: Final = 100

_CONDITION = re.compile(r"([a-z]+)\s*(!=|!~|<=|>=|=|~|<|>)\s*(\"[^\"]*\"|[^,\s\"]+)")
_BETWEEN = re.compile(r"[\s,]*")

_EXAMPLE: Final = "Write it as in size>1GB,format=gguf,name~^llama."


@dataclass(frozen=True, slots=True)
class Row:
    """One model as a condition sees it. `used` counts from the manifest for a model that was never used."""

    view: ModelView
    used: float
    now: float


Test = Callable[[Row], bool]
Order = Callable[[Row], str | int | float]

_NUMBERS: Final[dict[str, Callable[[float, float], bool]]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}
_TEXTS: Final[dict[str, Callable[[Row], str]]] = {
    "name": lambda row: row.view.name,
    "format": lambda row: row.view.format,
    "state": lambda row: row.view.state,
    "pinned": lambda row: "yes" if row.view.pinned else "no",
}
_KEYS: Final = (*_TEXTS, "size", "used")

ORDERS: Final[dict[str, Order]] = {
    **_TEXTS,
    "size": lambda row: row.view.size_bytes,
    "used": lambda row: row.used,
}


@dataclass(frozen=True, slots=True)
class Query:
    """A selection of models and their order. Names are unique, so the order is total."""

    tests: tuple[Test, ...]
    order: Order
    descending: bool

    @classmethod
    def parse(cls, filter_text: str | None, sort: str | None) -> Query:
        descending = sort is not None and sort.startswith("-")
        key = (sort or "name").removeprefix("-")
        if key not in ORDERS:
            raise InvalidRequest(
                f"$.sort: there is no order by {key[:64]!r}",
                hint=f"The keys are {', '.join(ORDERS)}; -{next(iter(ORDERS))} reverses the order.",
            )
        return cls(tuple(_tests(filter_text or "")), ORDERS[key], descending)

    def accepts(self, row: Row) -> bool:
        return all(test(row) for test in self.tests)

    def sorted(self, rows: list[Row]) -> list[Row]:
        """By the key; models of equal keys by name, ascending in both directions."""
        by_name = sorted(rows, key=lambda row: row.view.name)
        return sorted(by_name, key=self.order, reverse=self.descending)


def _tests(text: str) -> list[Test]:
    if len(text) > MAX_TEXT:
        raise InvalidRequest(f"$.filter: it has {len(text)} characters, {MAX_TEXT} are allowed", hint=_EXAMPLE)
    made: list[Test] = []
    at = _skip(text, 0)
    while at < len(text):
        found = _CONDITION.match(text, at)
        if found is None:
            raise _refused(
                re.split(r"[\s,]", text[at:])[0] or text[at:], "it is not a condition such as KEY OPERATOR VALUE"
            )
        key, operator, value = found[1], found[2], found[3].strip('"')
        made.append(_test(found[0], key, operator, value))
        after = _skip(text, found.end())
        if after == found.end() < len(text):
            raise _refused(found[0], f"{text[after]!r} follows it without a comma or a space")
        at = after
    return made


def _skip(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return at if found is None else found.end()


def _test(written: str, key: str, operator: str, value: str) -> Test:
    if key in _TEXTS:
        return _text_test(written, key, operator, value)
    if operator not in _NUMBERS and key in _KEYS:
        raise _refused(written, f"{key} is compared with {' '.join(_NUMBERS)}")
    compare = _NUMBERS.get(operator, _NUMBERS["="])
    try:
        if key == "size":
            size = parse_size(value)
            return lambda row: compare(row.view.size_bytes, size)
        if key == "used":
            ago = parse_duration(value)
            return lambda row: compare(row.now - row.used, ago)
    except ValueError as fault:
        raise _refused(written, str(fault)) from None
    raise _refused(written, f"there is no key {key!r}; the keys are {', '.join(_KEYS)}")


def _text_test(written: str, key: str, operator: str, value: str) -> Test:
    """Compares without regard to case."""
    text = _TEXTS[key]
    if operator in ("~", "!~"):
        pattern, wanted = _pattern(written, value), operator == "~"
        return lambda row: pattern.found_in(text(row)) == wanted
    if operator not in ("=", "!="):
        raise _refused(written, f"{key} is compared with = != ~ !~")
    if key == "state" and value not in get_args(ModelState):
        raise _refused(written, f"there is no state {value!r}; the states are {', '.join(get_args(ModelState))}")
    same, folded = operator == "=", value.lower()
    return lambda row: (text(row).lower() == folded) == same


def _pattern(written: str, pattern: str) -> Pattern:
    if len(pattern) > MAX_PATTERN:
        raise _refused(written[:MAX_PATTERN] + "…", f"a pattern has at most {MAX_PATTERN} characters")
    try:
        return Pattern(pattern)
    except BadPattern as fault:
        raise _refused(written, f"it is no pattern: {fault}") from None


def _refused(written: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"$.filter: {written[:160]!r} cannot be used: {why}", hint=_EXAMPLE)
