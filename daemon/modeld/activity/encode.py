"""Encodes an event as its line: numbered, dated, without secrets, once for the log and all watchers."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from modeld.activity.generations import LINE_BYTES
from modeld.observe.redact import redact

LEADING = ("job", "model", "digest", "peer", "outcome")
"""The fields that come first, in this order, for people who read the log."""

_ENCODER = msgspec.json.Encoder()


class Stamp:
    """Formats times as RFC 3339 in UTC with milliseconds; formats the part down to the second once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, now: float) -> str:
        second, milliseconds = divmod(int(now * 1000), 1000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{milliseconds:03d}Z"


def event_line(seq: int, moment: str, event: str, fields: dict[str, Any]) -> bytes:
    """One JSON object without a newline. Fields that are None are left out."""
    line: dict[str, Any] = {"seq": seq, "time": moment, "event": event}
    for name in LEADING:
        if (value := fields.get(name)) is not None:
            line[name] = value
    for name, value in fields.items():
        if value is not None:
            line.setdefault(name, value)
    clean = redact(line)
    encoded = _ENCODER.encode(clean)
    if len(encoded) < LINE_BYTES:
        return encoded
    brief = {name: clean[name] for name in ("seq", "time", "event", *LEADING) if name in clean}
    brief = {name: value if isinstance(value, int) else str(value)[:256] for name, value in brief.items()}
    return _ENCODER.encode({**brief, "cut_bytes": len(encoded)})


def progress_line(job: str, fields: dict[str, Any]) -> bytes:
    return _ENCODER.encode(redact({"job": job, **fields}))
