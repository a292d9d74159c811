"""One event of the activity log as a line for people, or as the record that it is."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from modelclient.ctl.output import printable
from modelclient.ctl.session import Session
from modelwire.replies import Event, Lagged

_SHOWN = frozenset({"seq", "time", "event", "model", "job", "outcome"})
_WORD = re.compile(r"[^\s\"\x00-\x20\x7f-\x9f]+")
_RED, _GREEN, _DIM = "31", "32", "2"


def print_event(session: Session, event: Event | Lagged) -> None:
    if isinstance(event, Lagged):
        if session.raw:
            session.stream(event)
        session.note(f"{event.dropped} events were missed: modelctl log --since {event.resume_from}")
    elif session.raw:
        session.stream(event.fields)
    elif session.quiet:
        session.out.line(f"{event.seq} {printable(event.event)}")
    else:
        session.out.line(_line(session, event))


def _line(session: Session, event: Event) -> str:
    color = _RED if event.outcome in ("failed", "error") else _GREEN if event.outcome in ("done", "ok") else ""
    outcome = printable(event.outcome or "")
    parts = [
        session.colored(printable(event.time), _DIM),
        f"{event.seq:>6}",
        printable(event.event),
        printable(event.model or ""),
        session.colored(outcome, color) if color else outcome,
        f"job={printable(event.job)}" if event.job else "",
        *(f"{printable(key)}={_value(value)}" for key, value in event.fields.items() if key not in _SHOWN),
    ]
    return "  ".join(filter(None, parts))


def _value(value: Any) -> str:
    """One word as it is, all else as JSON, so that its end can be seen."""
    if isinstance(value, str) and _WORD.fullmatch(value):
        return value
    return printable(msgspec.json.encode(value).decode())
