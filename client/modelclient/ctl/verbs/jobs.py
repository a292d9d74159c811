"""`jobs`: work that runs, waits or has ended."""

from __future__ import annotations

import argparse
from typing import get_args

from modelclient.ctl import exits
from modelclient.ctl.jobview import HEADINGS, row
from modelclient.ctl.options import number
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire.vocabulary import JobState


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", choices=get_args(JobState), default=None, help="only these")
    parser.add_argument(
        "-n", dest="limit", metavar="N", type=number(1, 1000), default=100, help="the newest N (default: 100)"
    )


def run(session: Session, args: argparse.Namespace) -> int:
    jobs = session.client().jobs(state=args.state, limit=args.limit)
    if session.json:
        session.out.document(jobs)
    elif session.events:
        for job in jobs:
            session.out.record(job)
    elif session.quiet:
        session.out.text("".join(f"{job.id}\n" for job in jobs))
    elif jobs:
        session.out.text(columns(HEADINGS, map(row, jobs)))
    else:
        session.note(f"no job is {args.state}" if args.state else "there are no jobs")
    return exits.FINE
