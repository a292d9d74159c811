"""Sizes, rates and durations: how people write them, for the daemon and for the command.

`parse_*` reads what a person writes. `format_*` returns the shortest text that reads back to the same number, for
configuration files. `rounded_*` returns what a person reads at a glance.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Final, NoReturn

_PREFIXES: Final = "KMGTP"
_DECIMAL: Final = tuple(1000**power for power in range(1, 6))
_BINARY: Final = tuple(1024**power for power in range(1, 6))
# Thirty digits hold every size below the limit; more would only let a text grow without meaning.
_BYTES: Final = r"(\d{0,30})(?:\.(\d{0,30}))? ?([KMGTP]?)(I?)(B?)"
_BITS: Final = r"[\d. ]+[KMGTP]?I?B(?:IT(?:S|/S|PS)?|PS)"

_MILLISECONDS: Final = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
# Largest unit first and each at most once: `30m1h` and `1m1m` are slips of the pen, not sums.
_DURATION: Final = " ?".join(rf"(?:(?P<{unit}>\d{{1,15}}(?:\.\d{{1,9}})?){unit})?" for unit in _MILLISECONDS)
_SECONDS: Final = r"\d{1,15}(?:\.\d{1,9})?"

LARGEST: Final = 2**63 - 1
"""`off_t` and SQLite's INTEGER end here."""

SLOWEST_RATE: Final = 1000
"""A kilobyte a second: a smaller number was meant in another unit."""

LONGEST: Final = 36_500 * 86_400
"""A century: far beyond any use, far below where clocks and timers overflow."""


class Size(int):
    """A number of bytes: an int that a configuration may write with a unit."""

    __slots__ = ()


class Rate(Size):
    """A number of bytes a second."""

    __slots__ = ()


class Duration(float):
    """A number of seconds: a float that a configuration may write with units."""

    __slots__ = ()


def parse_size(value: str | int) -> Size:
    """Bytes: `5GB`, `16MiB`, `1.5 TiB` or a plain number. As in coreutils `K` and `KiB` are 1024, `KB` is 1000.

    ValueError or TypeError says what was expected.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return _size(value, value)
    if not isinstance(value, str):
        raise TypeError(f"expected a size such as '5GB' or '16MiB', got {type(value).__name__}")
    amount = _amount(value.strip())
    if amount is None:
        raise ValueError(f"expected a size such as '5GB', '16MiB' or a number of bytes, got {value[:64]!r}")
    size, rest = divmod(amount[0], amount[1])
    if rest:
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return _size(size, value)


def parse_rate(text: str) -> int:
    """Bytes a second: a size, with or without `/s`. `none` and `0` are no limit, 0.

    ValueError says what was expected.
    """
    written = text.strip()
    if written.lower() == "none":
        return 0
    if re.fullmatch(_BITS, written, re.IGNORECASE | re.ASCII):
        raise ValueError(f"{text!r} counts bits; a rate is in bytes, not bits: 100 Mbit/s are 12.5MB")
    per_second = written[-2:].lower() == "/s"
    amount = _amount(written[:-2] if per_second else written)
    if amount is not None:
        bytes_by, seconds = amount
        if not bytes_by or SLOWEST_RATE * seconds <= bytes_by <= LARGEST * seconds:
            return bytes_by // seconds
    raise ValueError(
        f"{text!r} is not a rate of at least 1kB: write 20MB for 20 megabytes a second, or none for no limit"
    )


def parse_duration(value: str | float) -> Duration:
    """Seconds: `90s`, `15m`, `1h30m`, `30d` or a plain number. ValueError or TypeError says what was expected."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _duration(float(value), value) if isfinite(value) else _no_duration(value)
    if not isinstance(value, str):
        raise TypeError(f"expected a duration such as '15m' or '1h30m', got {type(value).__name__}")
    text = value.strip()
    if re.fullmatch(_SECONDS, text, re.ASCII):
        return _duration(float(text), value)
    match = re.fullmatch(_DURATION, text, re.ASCII)
    if match is None or not text:
        _no_duration(value)
    # In units of 10^-12 s, for a sum of decimals that is exact.
    total = sum(
        int(whole + fraction.ljust(9, "0")) * _MILLISECONDS[unit]
        for unit, count in match.groupdict().items()
        if count
        for whole, _, fraction in [count.partition(".")]
    )
    return _duration(total / 10**12, value)


def format_size(number: int) -> str:
    """The shortest text that `parse_size` turns back into exactly this number."""
    for factors, suffix in ((_BINARY, "iB"), (_DECIMAL, "B")):
        for prefix, factor in zip(reversed(_PREFIXES), reversed(factors), strict=True):
            if number and number % factor == 0:
                return f"{number // factor}{prefix}{suffix}"
    return str(int(number))


def format_duration(seconds: float) -> str:
    """`1h30m` for 5400; exact down to a millisecond, and rounded to one below that."""
    left = round(seconds * 1000)
    parts = []
    for unit, size in _MILLISECONDS.items():
        if unit == "w":
            continue  # weeks read worse than days: 30d, not 4w2d
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def rounded_size(count: int | None) -> str:
    """Decimal units, three significant digits: what disks and download pages use."""
    if count is None:
        return "?"
    if abs(count) < 1000:
        return f"{count} B"
    amount, prefix = _three_digits(count, "kMGTP")
    return f"{amount} {prefix}B"


def rounded_count(count: int) -> str:
    """As the names of models have it: 8.03B, 270M."""
    return str(count) if count < 1000 else "".join(_three_digits(count, "KMBT"))


def _three_digits(count: int, prefixes: str) -> tuple[str, str]:
    step, amount = 0, count / 1000
    while abs(amount) >= 999.5 and step < len(prefixes) - 1:
        step, amount = step + 1, amount / 1000
    digits = 2 if abs(amount) < 9.995 else 1 if abs(amount) < 99.95 else 0
    return f"{amount:.{digits}f}", prefixes[step]


def rounded_rate(per_second: int | None) -> str:
    return "" if per_second is None else f"{rounded_size(per_second)}/s"


def rounded_duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {left} s" if left else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def _amount(text: str) -> tuple[int, int] | None:
    """Bytes as a numerator and a denominator; None for what is no amount of bytes."""
    match = re.fullmatch(_BYTES, text, re.IGNORECASE | re.ASCII)
    if match is None:
        return None
    whole, fraction, prefix, binary, byte = match.groups(default="")
    if not (whole or fraction) or (binary and not prefix):
        return None
    factors = _DECIMAL if byte and not binary else _BINARY
    factor = factors[_PREFIXES.index(prefix.upper())] if prefix else 1
    return int(whole + fraction) * factor, 10 ** len(fraction)


def _size(number: int, written: str | int) -> Size:
    if not 0 <= number <= LARGEST:
        raise ValueError(f"expected a size from 0 to 2^63-1 bytes, got {written!r:.64}")
    return Size(number)


def _no_duration(written: str | float) -> NoReturn:
    raise ValueError(f"expected a duration such as '15m', '1h30m' or a number of seconds, got {written!r:.64}")


def _duration(seconds: float, written: str | float) -> Duration:
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"expected a duration from 0 to 36500d, got {written!r:.64}")
    return Duration(seconds)
