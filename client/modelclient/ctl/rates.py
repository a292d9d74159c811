"""Bytes a second as people write them: `20MB/s`, `500K`, `1.5MiB`, or `none`."""

from __future__ import annotations

import re

_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BINARY = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_WRITTEN = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?(?:([kmg])(i?))?(b?)(?:/s)?", re.IGNORECASE | re.ASCII)
_BITS = re.compile(r"[\d. ]+[kmg]?i?b(?:it(?:s|/s|ps)?|ps)", re.IGNORECASE | re.ASCII)

NO_LIMIT = 0
SLOWEST = 1000
LARGEST = 2**63 - 1


def parse(text: str) -> int:
    """`M` and `MiB` are 2^20, `MB` is 10^6, as in the configuration; `none` and `0` are no limit, 0. ValueError."""
    written = text.strip()
    if written.lower() == "none":
        return NO_LIMIT
    if _BITS.fullmatch(written):
        raise ValueError(f"{text!r} counts bits; a rate is in bytes, not bits: 100 Mbit/s are 12.5MB")
    match = _WRITTEN.fullmatch(written)
    rate = -1.0
    if match is not None:
        units = _DECIMAL if match[4] and not match[3] else _BINARY
        rate = float(match[1]) * units[(match[2] or "").lower()]
    if rate != NO_LIMIT and not SLOWEST <= rate <= LARGEST:
        raise ValueError(
            f"{text!r} is no rate of at least 1kB: write 20MB for 20 megabytes a second, or none for no limit"
        )
    return int(rate)
