"""Sizes as people write them: `5GB`, `16MiB`, `1.5 TiB`, or a plain number of bytes."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_BINARY: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_DECIMAL: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
# Eighteen digits hold every size below the limit; more would only let a text grow without meaning.
_PATTERN: Final = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) ?([kmgtp]?)(i?b)?", re.IGNORECASE | re.ASCII)

LARGEST: Final = 2**63 - 1
"""`off_t` and SQLite's INTEGER end here."""


class Size(int):
    """A number of bytes: an int that a configuration may write with a unit."""

    __slots__ = ()


def parse_size(value: str | int) -> Size:
    """Bytes; as in coreutils `K` and `KiB` are 1024, `KB` is 1000. ValueError or TypeError says what was expected."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(value, value)
    if not isinstance(value, str):
        raise TypeError(f"expected a size such as '5GB' or '16MiB', got {type(value).__name__}")
    match = _PATTERN.fullmatch(value.strip())
    if match is None or (match[3] and match[3][0] in "iI" and not match[2]):
        raise ValueError(f"expected a size such as '5GB', '16MiB' or a number of bytes, got {value[:64]!r}")
    units = _DECIMAL if match[3] and match[3][0] in "bB" else _BINARY
    exact = Fraction(match[1]) * units[match[2].upper()]
    if exact.denominator != 1:
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return _bounded(int(exact), value)


def _bounded(number: int, written: str | int) -> Size:
    if not 0 <= number <= LARGEST:
        raise ValueError(f"expected a size from 0 to 2^63-1 bytes, got {written!r:.64}")
    return Size(number)


def format_size(number: int) -> str:
    """The shortest text that `parse_size` turns back into exactly this number."""
    for units, suffix in ((_BINARY, "iB"), (_DECIMAL, "B")):
        for unit in "PTGMK":
            if number and number % units[unit] == 0:
                return f"{number // units[unit]}{unit}{suffix}"
    return str(int(number))
