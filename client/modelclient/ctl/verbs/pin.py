"""`pin NAME`: keeps a model for good."""

from __future__ import annotations

import argparse

from modelclient.ctl.follow import carry_out
from modelclient.ctl.output import command
from modelclient.ctl.session import Session
from modelclient.ctl.table import line


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the model")


def run(session: Session, args: argparse.Namespace) -> None:
    client = session.client()
    done = carry_out(session, lambda: client.pin(args.name), command("pin", [args.name]))
    text = line(done.name, "pinned" if done.changed else "pinned already")
    session.show_result(done, quiet=[done.name], text=text)
