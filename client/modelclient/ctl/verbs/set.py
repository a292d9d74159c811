"""`set KEY=VALUE…`: changes settings of the running daemon, or of one job."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from difflib import get_close_matches

from modelclient.ctl.session import Session
from modelclient.ctl.table import pairs
from modelwire.errors import InvalidRequest
from modelwire.fields import MOST_SLOTS
from modelwire.units import parse_rate, rounded_rate
from modelwire.values import Change, Configured
from modelwire.vocabulary import PRIORITY_HIGHEST, PRIORITY_LOWEST


def _priority(text: str) -> int:
    if text not in map(str, range(PRIORITY_HIGHEST, PRIORITY_LOWEST + 1)):
        raise ValueError(f"{text!r} is not a priority: {PRIORITY_HIGHEST} is the highest, {PRIORITY_LOWEST} the lowest")
    return int(text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise ValueError(f"{text!r} is not a number of jobs")
    return int(text)


def _slots(text: str) -> int:
    if not 1 <= _number(text) <= MOST_SLOTS:
        raise ValueError(f"{text!r} is not a number of jobs from 1 to {MOST_SLOTS}")
    return int(text)


DAEMON: dict[str, Callable[[str], int]] = {
    "max_rate": parse_rate,
    "running_fetches": _slots,
    "running_bytes": _slots,
    "waiting_total": _number,
    "waiting_per_peer": _number,
}
JOB: dict[str, Callable[[str], int]] = {"max_rate": parse_rate, "priority": _priority}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "settings",
        metavar="KEY=VALUE",
        nargs="+",
        help="such as max_rate=20MB/s or max_rate=none; for a job also priority=1",
    )
    parser.add_argument("--job", metavar="ID", help="change this job alone (default: the daemon)")


def run(session: Session, args: argparse.Namespace) -> None:
    wanted = _read(args.settings, JOB if args.job is not None else DAEMON, of_job=args.job is not None)
    client = session.client()
    if args.job is None:
        done = client.configure(**wanted)
    else:
        done = client.configure_job(args.job, priority=wanted.get("priority"), max_rate=wanted.get("max_rate"))
    _print(session, done)


def _read(words: list[str], known: dict[str, Callable[[str], int]], *, of_job: bool) -> dict[str, int]:
    wanted: dict[str, int] = {}
    listed = ", ".join(known)
    for word in words:
        key, equals, text = (part.strip() for part in word.partition("="))
        if not equals:
            raise InvalidRequest(
                f"{word!r} is not of the form KEY=VALUE", hint="Write it like this: `modelctl set max_rate=20MB/s`."
            )
        if key not in known:
            raise InvalidRequest(
                f"there is no setting {key!r} of {'a job' if of_job else 'the daemon'}", hint=_hint(key, known)
            )
        if key in wanted:
            raise InvalidRequest(f"{key} is given twice", hint="Give each setting once.")
        try:
            wanted[key] = known[key](text)
        except ValueError as fault:
            raise InvalidRequest(f"{key}: {fault}", hint=f"Set one of {listed}.") from None
    return wanted


def _hint(key: str, known: dict[str, Callable[[str], int]]) -> str:
    listed = f"Set one of {', '.join(known)}."
    if key in JOB and known is DAEMON:
        return f"Set it for a job: `modelctl set {key}=… --job ID`."
    if key in DAEMON and known is JOB:
        return f"Set it for the daemon: `modelctl set {key}=…`."
    near = get_close_matches(key.rpartition(".")[2], known, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return listed if known is JOB else f"{listed} See all others with `modeld --print-config`."


def _print(session: Session, done: Configured) -> None:
    session.show(
        done,
        quiet=list(done.settings),
        text=pairs((key, _change(key, change)) for key, change in done.settings.items()),
    )
    if done.lasts_until == "stop" and not session.raw:
        for key, change in done.settings.items():
            if change.new != change.at_start:
                session.note(
                    f"{key}: it lasts until the daemon stops; the next one starts with {_shown(key, change.at_start)}"
                )


def _change(key: str, change: Change) -> str:
    now = _shown(key, change.new)
    return f"{now} (as before)" if change.old == change.new else f"{now} (was {_shown(key, change.old)})"


def _shown(key: str, value: int | str | None) -> str:
    if value is None:
        return "no limit"
    return rounded_rate(value) if key == "max_rate" and isinstance(value, int) else str(value)
