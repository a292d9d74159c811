"""`log`: what has happened, from the daemon's durable log."""

from __future__ import annotations

import argparse

from modelclient.ctl import exits
from modelclient.ctl.eventline import print_event
from modelclient.ctl.options import number
from modelclient.ctl.session import Session
from modelwire.replies import Event, Lagged

LAST = 20


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", default=False, help="go on with what happens next")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "-n", dest="last", metavar="N", type=number(0), default=None, help=f"the newest N (default: {LAST})"
    )
    which.add_argument("--since", metavar="SEQ", type=number(0), default=None, help="everything after this line")


def run(session: Session, args: argparse.Namespace) -> int:
    last = args.last if args.last is not None or args.since is not None else LAST
    with session.client().subscribe(since=args.since, last=last, follow=args.follow) as events:
        for event in events:
            if isinstance(event, Event | Lagged):
                print_event(session, event)
    return exits.FINE
