"""`rm NAME…`: removes names; the bytes stay until a sweep."""

from __future__ import annotations

import argparse
from typing import Any

from modelclient.ctl.error_report import as_value, report
from modelclient.ctl.follow import carry_out
from modelclient.ctl.output import command
from modelclient.ctl.session import Session
from modelwire import exits
from modelwire.errors import WireError
from modelwire.units import rounded_size
from modelwire.values import Removed


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="the models")
    parser.add_argument("--force", action="store_true", help="also remove models that are in use")


def run(session: Session, args: argparse.Namespace) -> int:
    """One name that cannot be removed does not keep the others. The first failure decides the exit code."""
    outcomes: list[Any] = []
    code = exits.FINE
    for name in args.names:
        try:
            removed = _remove(session, name, force=args.force)
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
            _show(session, removed)
    if session.json and len(args.names) > 1:
        session.out.document(outcomes)
    elif session.json and code == exits.FINE:
        session.out.document(outcomes[0])
    return code


def _remove(session: Session, name: str, *, force: bool) -> Removed:
    client = session.client()
    again = command("rm", [name], ["--force"] if force else [])
    return carry_out(session, lambda: client.remove(name, force=force), again)


def _show(session: Session, removed: Removed) -> None:
    if session.events:
        session.out.record({"type": "result", "value": removed})
    elif session.quiet:
        session.out.line(removed.name)
    elif not session.json:
        session.out.line(f"{removed.name}  {rounded_size(removed.size_bytes)}  removed")
