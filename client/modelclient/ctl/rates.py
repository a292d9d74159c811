"""Bytes a second as people write them: `20MB/s`, `500k`, `1.5MiB`, or `none`."""

from __future__ import annotations

import re

_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BINARY = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_WRITTEN = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?(?:([kmg])(i?))?b?(?:/s|ps)?", re.IGNORECASE | re.ASCII)

NO_LIMIT = 0
SLOWEST = 1000
LARGEST = 2**63 - 1


def parse(text: str) -> int:
    """Decimal unless it says `MiB`, as networks count; 0 for `none` and `0`, which both are no limit. ValueError."""
    written = text.strip()
    if written.lower() == "none":
        return NO_LIMIT
    match = _WRITTEN.fullmatch(written)
    rate = -1.0
    if match is not None:
        rate = float(match[1]) * (_BINARY if match[3] else _DECIMAL)[(match[2] or "").lower()]
    if rate != NO_LIMIT and not SLOWEST <= rate <= LARGEST:
        raise ValueError(
            f"{text!r} is no rate of at least 1kB: write 20MB for 20 megabytes a second, or none for no limit"
        )
    return int(rate)
