"""`rm NAME…`: names away; the bytes wait for a sweep."""

from __future__ import annotations

import argparse
from typing import Any

from modelclient.ctl import exits, figures
from modelclient.ctl.session import Session, tell
from modelclient.ctl.telling import carry_out
from modelwire.errors import WireError
from modelwire.values import Removed


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="the models")
    parser.add_argument("--force", action="store_true", default=False, help="also when a model is in use")


def run(session: Session, args: argparse.Namespace) -> int:
    """Each name for itself: one that cannot be removed does not keep the others. The first failure decides the code."""
    outcomes: list[Any] = []
    code = exits.FINE
    for name in args.names:
        try:
            removed = _remove(session, name, force=args.force)
        except WireError as error:
            code = code or exits.exit_code(error)
            outcomes.append({"name": name, "error": exits.as_json(error)})
            tell(
                error,
                as_json=session.json and len(args.names) == 1,
                as_event=session.events and not session.json,
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
    return carry_out(session, lambda: client.remove(name, force=force), f"modelctl rm {name}")


def _show(session: Session, removed: Removed) -> None:
    if session.events:
        session.out.record({"type": "result", "value": removed})
    elif session.quiet:
        session.out.line(removed.name)
    elif not session.json:
        session.out.line(f"{removed.name}  {figures.size(removed.size_bytes)}  removed")
