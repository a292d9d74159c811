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
    set_pin(session, args.name, pinned=True)


def set_pin(session: Session, name: str, *, pinned: bool) -> None:
    client = session.client()
    change, verb = (client.pin, "pin") if pinned else (client.unpin, "unpin")
    done = carry_out(session, lambda: change(name), command(verb, [name]))
    state = "pinned" if pinned else "not pinned"
    text = line(done.name, state if done.changed else f"{state} already")
    session.show_result(done, quiet=[done.name], text=text)
