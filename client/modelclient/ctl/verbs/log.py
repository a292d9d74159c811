"""`log`: past events, from the daemon's durable log."""

from __future__ import annotations

import argparse

from modelclient.ctl.arguments import number
from modelclient.ctl.eventline import print_event
from modelclient.ctl.session import Session
from modelwire.replies import Event, Lagged

LAST = 20


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new events as they come")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-n", dest="last", metavar="N", type=number(0), help=f"show the newest N (default: {LAST})")
    which.add_argument("--since", metavar="SEQ", type=number(0), help="show everything after this number")


def run(session: Session, args: argparse.Namespace) -> None:
    last = args.last if args.last is not None or args.since is not None else LAST
    with session.client().subscribe(since=args.since, last=last, follow=args.follow) as events:
        if session.json:
            session.out.begin_array()
        for event in events:
            if isinstance(event, Event | Lagged):
                print_event(session, event)
