"""Durations as people write them: `90s`, `15m`, `1h30m`, `30d`, or a plain number of seconds."""

from __future__ import annotations

import re
from fractions import Fraction
from math import isfinite
from typing import Final

_MILLISECONDS: Final = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
# Largest unit first and each at most once: `30m1h` and `1m1m` are slips of the pen, not sums.
_PATTERN: Final = re.compile(
    " ?".join(rf"(?:(?P<{unit}>\d{{1,15}}(?:\.\d{{1,9}})?){unit})?" for unit in _MILLISECONDS), re.ASCII
)
_NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)

LONGEST: Final = 36_500 * 86_400.0
"""A century: far beyond any use, far below where clocks and timers overflow."""


class Duration(float):
    """A number of seconds: a float that a configuration may write with units."""

    __slots__ = ()


def parse_duration(value: str | float) -> Duration:
    """Seconds. ValueError or TypeError says what was expected."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _bounded(float(value), value) if isfinite(value) else _refuse(value)
    if not isinstance(value, str):
        raise TypeError(f"expected a duration such as '15m' or '1h30m', got {type(value).__name__}")
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _bounded(float(text), value)
    match = _PATTERN.fullmatch(text)
    if match is None or not text:
        return _refuse(value)
    total = sum(Fraction(count) * _MILLISECONDS[unit] for unit, count in match.groupdict().items() if count)
    return _bounded(float(Fraction(total, 1000)), value)


def _refuse(written: str | float) -> Duration:
    raise ValueError(f"expected a duration such as '15m', '1h30m' or a number of seconds, got {written!r:.64}")


def _bounded(seconds: float, written: str | float) -> Duration:
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"expected a duration from 0 to 36500d, got {written!r:.64}")
    return Duration(seconds)


def format_duration(seconds: float) -> str:
    """`1h30m` for 5400; exact down to a millisecond, and rounded to one below that."""
    left = round(seconds * 1000)
    parts = []
    for unit, size in _MILLISECONDS.items():
        count, left = divmod(left, size)
        if count and unit != "w":
            parts.append(f"{count}{unit}")
        elif count:  # weeks read worse than days: 30d, not 4w2d
            left += count * size
    return "".join(parts) or "0s"
