"""Regular expressions of a small kind, matched in time that is linear in the text, whatever the pattern.

Python's own expressions try every way to divide a text among the repetitions of a pattern: a short one keeps the
interpreter, and with it every client, busy for as long as its author likes. Here all positions of the pattern that the
text up to now can have reached are one number, and each character of the text costs a few operations on it.

Without groups a pattern is a choice of chains, and a chain is a list of single characters that may repeat:

    alternatives    chain|chain
    chain           ^ item ... $       both marks optional
    item            a  \\.  .  [a-z0-9_]  [^a-c]    then optionally * + ? {2} {2,} {,3} {2,3}

Letters match in either case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MOST_POSITIONS: Final = 1000
"""Of a whole pattern: the longest name, of 257 characters, costs less than a millisecond with them."""

_ITEM: Final = re.compile(
    r"(?P<any>\.)|\\(?P<escaped>[^A-Za-z0-9])|\[(?P<not>\^?)(?P<set>\]?(?:\\[^A-Za-z0-9]|[^\]\\])*)\]"
    r"|(?P<plain>[^\\.\[\](){}*+?^$|])",
    re.DOTALL,
)
_MEMBER: Final = re.compile(r"(\\.|[^\\])(?:-(\\.|[^\\]))?", re.DOTALL)
_REPEAT: Final = re.compile(r"[*+?]|\{(\d{1,4})\}|\{(\d{0,4}),(\d{0,4})\}")
_SIMPLE: Final[dict[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class BadPattern(ValueError):
    """The message says what is wrong with it, and where."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One character of the text."""

    characters: frozenset[str]
    negated: bool

    def matches(self, character: str) -> bool:
        return (character in self.characters) != self.negated


class Pattern:
    def __init__(self, text: str) -> None:
        self._chains = [_Chain(part, text) for part in _parts(text)]
        if sum(chain.length for chain in self._chains) > MOST_POSITIONS:
            raise BadPattern(f"its repetitions come to more than {MOST_POSITIONS} characters")

    def found_in(self, text: str) -> bool:
        text = text.lower()
        return any(chain.found_in(text) for chain in self._chains)


class _Chain:
    """A row of items. The positions are bits: bit n is set while the text up to now can have matched n items."""

    def __init__(self, text: str, whole: str) -> None:
        self._from_start = text.startswith("^")
        self._items: list[_Item] = []
        self._loops = self._skips = 0
        at = int(self._from_start)
        self._to_end = _ends_marked(text, at)
        end = len(text) - self._to_end
        while at < end:
            at = self._take(text, at, end, whole)
        self.length = len(self._items)
        # Positions next to items that may be left out: the first of each row of them, and the one behind the row.
        self._reached = self._skips << 1
        self._firsts = self._skips & ~self._reached
        self._lasts = self._reached & ~self._skips
        self._by_character: dict[str, int] = {}

    def found_in(self, text: str) -> bool:
        done, start = 1 << self.length, self._with_skipped(1)
        active = start
        for character in text:
            if active & done and not self._to_end:
                return True
            hit = active & self._items_for(character)
            active = self._with_skipped(hit << 1 | hit & self._loops)
            if not self._from_start:
                active |= start
        return bool(active & done)

    def _with_skipped(self, active: int) -> int:
        """The positions that are reached by leaving out items that may be left out, all at once: within each row, the
        subtraction changes the bits up to the lowest set one, so those that stay are above it."""
        ended = active | self._lasts
        return active | (self._reached & (~(ended - self._firsts) ^ ended))

    def _items_for(self, character: str) -> int:
        bits = self._by_character.get(character)
        if bits is None:
            bits = sum(1 << number for number, item in enumerate(self._items) if item.matches(character))
            self._by_character[character] = bits
        return bits

    def _take(self, text: str, at: int, end: int, whole: str) -> int:
        """Reads one item and its repetition; returns where the next one starts."""
        found = _ITEM.match(text, at, end)
        if found is None:
            raise BadPattern(_why_not(text, at, whole))
        item, at = _item(found), found.end()
        repeat = _REPEAT.match(text, at, end)
        if repeat is None:
            self._add(item, 1, 1)
            return at
        at = repeat.end()
        if _REPEAT.match(text, at, end):
            raise BadPattern(f"{text[at]!r} follows another repetition")
        self._add(item, *_bounds(repeat))
        return at

    def _add(self, item: _Item, least: int, most: int | None) -> None:
        copies = max(least, 1) if most is None else most
        if len(self._items) + copies > MOST_POSITIONS:
            raise BadPattern(f"its repetitions come to more than {MOST_POSITIONS} characters")
        first = len(self._items)
        self._items += [item] * copies
        for number in range(least, copies):
            self._skips |= 1 << (first + number)
        if most is None:
            self._loops |= 1 << (first + copies - 1)


def _parts(text: str) -> list[str]:
    """The alternatives: a stroke that is escaped or within brackets divides nothing."""
    parts, first, at = [], 0, 0
    while at < len(text):
        found = _ITEM.match(text, at)
        if found is not None:
            at = found.end()
            continue
        if text[at] == "|":
            parts.append(text[first:at])
            first = at + 1
        at += 1
    return [*parts, text[first:]]


def _ends_marked(text: str, at: int) -> bool:
    """Whether the last character is the mark of the end, and no item."""
    while at < len(text) - 1:
        found = _ITEM.match(text, at)
        at = at + 1 if found is None else found.end()
    return at == len(text) - 1 and text.endswith("$")


def _item(found: re.Match[str]) -> _Item:
    if found["any"]:
        return _Item(frozenset(), negated=True)
    one = found["escaped"] or found["plain"]
    if one:
        return _Item(frozenset(one.lower()), negated=False)
    members: set[str] = set()
    for low, high in _MEMBER.findall(found["set"]):
        first, last = ord(low[-1]), ord((high or low)[-1])
        if first > last:
            raise BadPattern(f"the range {low}-{high} is empty")
        if last > 127:
            raise BadPattern("only ASCII characters stand within [ ]")
        members.update(chr(code).lower() for code in range(first, last + 1))
    return _Item(frozenset(members), negated=bool(found["not"]))


def _bounds(repeat: re.Match[str]) -> tuple[int, int | None]:
    simple = _SIMPLE.get(repeat[0])
    if simple is not None:
        return simple
    if repeat[1]:
        return int(repeat[1]), int(repeat[1])
    least, most = int(repeat[2] or 0), int(repeat[3]) if repeat[3] else None
    if most is not None and most < least:
        raise BadPattern(f"{repeat[0]} is the wrong way round")
    return least, most


def _why_not(text: str, at: int, whole: str) -> str:
    sign = text[at]
    if sign in "()":
        return "a pattern has no groups here; | divides the whole of it"
    if sign == "\\":
        return "a backslash stands only before a sign that is to be taken as it is"
    if sign in "*+?":
        return f"nothing precedes {sign!r}"
    if sign in "^$":
        return f"{sign!r} stands only at the {'start' if sign == '^' else 'end'}"
    if sign == "[":
        return "a [ is not closed"
    return f"{sign!r} needs a backslash before it in {whole!r}"
