"""`job ID`: everything about one job."""

from __future__ import annotations

import argparse

from modelclient.ctl import exits
from modelclient.ctl.jobview import print_job
from modelclient.ctl.session import Session


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="ID", help="the job")


def run(session: Session, args: argparse.Namespace) -> int:
    print_job(session, session.client().job(args.job))
    return exits.FINE
