"""`job ID`: everything about one job."""

from __future__ import annotations

import argparse

from modelclient.ctl.jobview import configure as configure
from modelclient.ctl.jobview import print_job
from modelclient.ctl.session import Session


def run(session: Session, args: argparse.Namespace) -> None:
    print_job(session, session.client().job(args.job))
