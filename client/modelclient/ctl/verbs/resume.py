"""`resume ID`: let a paused job go on."""

from __future__ import annotations

import argparse

from modelclient.ctl.jobview import print_state
from modelclient.ctl.session import Session


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="ID", help="the job")


def run(session: Session, args: argparse.Namespace) -> int:
    return print_state(session, session.client().resume(args.job))
