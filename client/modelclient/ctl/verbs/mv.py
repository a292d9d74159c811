"""`mv SRC DST`: renames a model."""

from __future__ import annotations

import argparse

from modelclient.ctl.follow import carry_out
from modelclient.ctl.output import command
from modelclient.ctl.session import Session
from modelclient.ctl.table import line
from modelwire.units import rounded_size


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="the model")
    parser.add_argument("destination", metavar="DST", help="its new name")


def run(session: Session, args: argparse.Namespace) -> None:
    client = session.client()
    moved = carry_out(
        session,
        lambda: client.move(args.source, args.destination),
        command("mv", [args.source, args.destination]),
    )
    text = line(moved.name, rounded_size(moved.size_bytes), f"was {moved.source}")
    session.show_result(moved, quiet=[moved.name], text=text)
