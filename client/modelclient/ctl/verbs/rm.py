"""`rm NAME…`: removes names; the bytes stay until a sweep, or go at once."""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from typing import Any

from modelclient.ctl.error_report import as_value, report
from modelclient.ctl.follow import carry_out
from modelclient.ctl.output import command
from modelclient.ctl.session import Session
from modelclient.ctl.table import line
from modelwire import exits
from modelwire.errors import WireError
from modelwire.units import rounded_duration, rounded_size
from modelwire.values import Removed


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="the models")
    parser.add_argument("--force", action="store_true", help="also remove models that are in use")
    parser.add_argument(
        "--now", action="store_true", help="also free the bytes that no other model needs, without the grace period"
    )


def run(session: Session, args: argparse.Namespace) -> int:
    """One name that cannot be removed does not keep the others. The first failure decides the exit code."""
    outcomes: list[Any] = []
    gone: list[Removed] = []
    code = exits.FINE
    for name in args.names:
        try:
            removed = _remove(session, name, force=args.force, now=args.now)
        except WireError as error:
            code = code or error.exit_code
            outcomes.append({"name": name, "error": as_value(error)})
            report(
                error,
                as_json=session.json and len(args.names) == 1,
                as_event=session.events,
            )
        else:
            outcomes.append(removed)
            gone.append(removed)
            _show(session, removed)
    if session.json and len(args.names) > 1:
        session.out.document(outcomes)
    elif session.json and code == exits.FINE:
        session.out.document(outcomes[0])
    if not session.raw:
        _note_space(session, gone)
    return code


def _remove(session: Session, name: str, *, force: bool, now: bool) -> Removed:
    client = session.client()
    again = command("rm", [name], (["--force"] if force else []) + (["--now"] if now else []))
    return carry_out(session, lambda: client.remove(name, force=force, now=now), again)


def _show(session: Session, removed: Removed) -> None:
    if session.events:
        session.out.record({"type": "result", "value": removed})
    elif session.quiet:
        session.out.text(line(removed.name))
    elif not session.json:
        session.out.text(line(removed.name, rounded_size(removed.size_bytes), "removed"))


def _note_space(session: Session, gone: list[Removed]) -> None:
    """What came back, what will and when, of all names together."""
    freed, frees = sum(each.freed_bytes for each in gone), sum(each.frees_bytes for each in gone)
    if freed:
        session.note(f"{rounded_size(freed)} freed")
    if not frees:
        return
    at = max((each.frees_at for each in gone if each.frees_at is not None), default=None)
    if at is None:
        session.note(f"{rounded_size(frees)} stay on the disk until `modelctl sweep` frees them")
        return
    moment = datetime.fromisoformat(at).astimezone()
    away = rounded_duration(max(0.0, moment.timestamp() - time.time()))
    session.note(
        f"the daemon frees {rounded_size(frees)} in {away}, at {moment:%Y-%m-%d %H:%M};"
        " `modelctl sweep --grace 0` frees them now"
    )
