"""`cancel ID`: ends a job; what has arrived is kept, or discarded on request."""

from __future__ import annotations

import argparse

from modelclient.ctl import jobview
from modelclient.ctl.session import Session
from modelwire.units import rounded_size


def configure(parser: argparse.ArgumentParser) -> None:
    jobview.configure(parser)
    parser.add_argument(
        "--discard", action="store_true", help="also remove what has arrived, of a job that has ended too"
    )


def run(session: Session, args: argparse.Namespace) -> None:
    job = session.client().cancel_job(args.job, discard=args.discard)
    jobview.print_state(session, job)
    if args.discard and not session.raw:
        freed = job.discarded_bytes
        session.note(f"{rounded_size(freed)} discarded" if freed else "nothing of it was kept that could be discarded")
