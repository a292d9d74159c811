"""`unpin NAME`: the opposite of `pin`."""

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
    done = carry_out(session, lambda: client.unpin(args.name), command("unpin", [args.name]))
    text = line(done.name, "not pinned" if done.changed else "not pinned already")
    session.show_result(done, quiet=[done.name], text=text)
