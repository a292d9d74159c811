"""Texts that make a regular expression try many ways: one that repeats what can repeat in more than one way takes
longer with each repetition, and holds the interpreter, with it every client, all that time."""

from __future__ import annotations

import importlib
import json
import pkgutil
import random
import re
import re._parser as parser  # type: ignore[import-not-found]
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import modelclient
import modeld
import modelwire

LONG = 3000
"""Characters. What grows with their square takes up to 0.3 s, what doubles with each repetition longer than anybody
waits."""

SECONDS = 3.0
TEXTS = 100
_INSIDE = {"CATEGORY_SPACE": " ", "CATEGORY_DIGIT": "1", "CATEGORY_WORD": "a_"}
_OTHERS = "a-1 .;=,/"


class TooLong(Exception):
    pass


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    def end(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def slow_text(pattern: re.Pattern[Any], seconds: float = SECONDS) -> str | None:
    """A text that the pattern takes longer for; None when none of those tried is one."""
    chance = random.Random(pattern.pattern)
    binary = isinstance(pattern.pattern, bytes)
    text = pattern.pattern.decode("latin-1") if binary else pattern.pattern
    tree = parser.parse(text, pattern.flags & ~re.UNICODE if binary else pattern.flags)
    repeated = list(_repeated(tree))
    for _ in range(TEXTS if repeated else 0):
        whole = _matching(tree, chance)
        unit = "".join(_matching(chance.choice(repeated), chance) for _ in range(chance.choice((1, 1, 2)))) or "a"
        begins = whole[: chance.randint(0, len(whole))] if chance.random() < 0.6 else ""
        tried = begins + unit * (LONG // len(unit)) + chance.choice(("", "x", "\0", "!", "\n", " "))
        given: Any = tried.encode("latin-1", "replace") if binary else tried
        try:
            with limited(seconds):
                pattern.match(given)
                pattern.fullmatch(given)
        except TooLong:
            return tried
    return None


def _repeated(tree: Any) -> Iterator[Any]:
    for kind, value in tree:
        match kind.name:
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                yield value[2]
                yield from _repeated(value[2])
            case "BRANCH":
                for each in value[1]:
                    yield from _repeated(each)
            case "SUBPATTERN":
                yield from _repeated(value[3])
            case "ATOMIC_GROUP":
                yield from _repeated(value)


def _matching(tree: Any, chance: random.Random) -> str:
    """About what the expression matches."""
    made = []
    for kind, value in tree:
        match kind.name:
            case "LITERAL":
                made.append(chr(value))
            case "NOT_LITERAL":
                made.append("b" if value == ord("a") else "a")
            case "ANY":
                made.append(chance.choice('a -"<'))
            case "IN":
                made.append(chance.choice(_one_of(value)))
            case "BRANCH":
                made.append(_matching(chance.choice(value[1]), chance))
            case "SUBPATTERN":
                made.append(_matching(value[3], chance))
            case "ATOMIC_GROUP":
                made.append(_matching(value, chance))
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, inner = value
                times = chance.choice((least, least, min(int(most), least + 1), min(int(most), least + 2)))
                made += [_matching(inner, chance) for _ in range(min(times, 5))]
    return "".join(made)


def _one_of(members: Any) -> str:
    negated, found = False, ""
    for kind, value in members:
        match kind.name:
            case "LITERAL":
                found += chr(value)
            case "RANGE":
                found += chr(value[0]) + chr(value[1])
            case "CATEGORY":
                found += _INSIDE.get(value.name, "x.")
            case "NEGATE":
                negated = True
    return "".join(each for each in _OTHERS if each not in found) or "~" if negated else found or "a"


def patterns_of_the_product() -> dict[str, re.Pattern[Any]]:
    """All that its modules compile as they are imported, by the place. For a process of its own."""
    found: dict[str, re.Pattern[Any]] = {}
    compiled, packages = re.compile, (modeld, modelclient, modelwire)
    places = tuple(each for package in packages for each in package.__path__)

    def note(pattern: Any, flags: int = 0) -> re.Pattern[Any]:
        made = compiled(pattern, flags)
        caller = sys._getframe(1)
        if caller.f_code.co_filename.startswith(places):
            found[f"{caller.f_globals['__name__']}:{caller.f_lineno}"] = made
        return made

    re.compile = note
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    re.compile = compiled
    return found


if __name__ == "__main__":
    every = patterns_of_the_product()
    slow = {place: text for place, pattern in every.items() if (text := slow_text(pattern)) is not None}
    print(json.dumps({"tried": len(every), "slow": slow}))
