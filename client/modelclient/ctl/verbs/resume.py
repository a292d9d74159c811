"""`resume ID`: resumes a paused job."""

from __future__ import annotations

import argparse

from modelclient.ctl.jobview import configure as configure
from modelclient.ctl.jobview import print_state
from modelclient.ctl.session import Session


def run(session: Session, args: argparse.Namespace) -> None:
    print_state(session, session.client().resume(args.job))
