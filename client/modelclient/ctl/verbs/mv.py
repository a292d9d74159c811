"""`mv SRC DST`: another name for a model."""

from __future__ import annotations

import argparse

from modelclient.ctl import exits, figures
from modelclient.ctl.session import Session
from modelclient.ctl.telling import carry_out, tell


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="the model")
    parser.add_argument("destination", metavar="DST", help="its name from now on")


def run(session: Session, args: argparse.Namespace) -> int:
    client = session.client()
    moved = carry_out(
        session,
        lambda: client.move(args.source, args.destination),
        f"modelctl mv {args.source} {args.destination}",
    )
    text = f"{moved.name}  {figures.size(moved.size_bytes)}  was {moved.source}\n"
    tell(session, moved, quiet=f"{moved.name}\n", text=text)
    return exits.FINE
