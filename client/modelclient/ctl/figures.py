"""Numbers as people read them."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB", "PB")


def size(count: int | None) -> str:
    """Decimal units, three significant digits: what disks and download pages use."""
    if count is None:
        return "?"
    if abs(count) < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in _UNITS:
        amount /= 1000
        if abs(amount) < 999.5 or unit == _UNITS[-1]:
            digits = 2 if abs(amount) < 9.995 else 1 if abs(amount) < 99.95 else 0
            return f"{amount:.{digits}f} {unit}"
    raise AssertionError("the last unit takes everything")


def rate(per_second: int | None) -> str:
    return "" if per_second is None else f"{size(per_second)}/s"


def duration(seconds: float) -> str:
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


def count(number: int, thing: str, things: str | None = None) -> str:
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def short_digest(text: str) -> str:
    """Enough of a digest to tell two apart by eye."""
    return text.removeprefix("sha256:")[:12]
