"""`jobs`: the jobs that run, wait or have ended."""

from __future__ import annotations

import argparse
from typing import get_args

from modelclient.ctl.arguments import number
from modelclient.ctl.jobview import HEADINGS, row
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire.requests import JOBS_LISTED
from modelwire.vocabulary import JobState


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", choices=get_args(JobState), help="list only these")
    parser.add_argument(
        "-n",
        dest="limit",
        metavar="N",
        type=number(1, 1000),
        default=JOBS_LISTED,
        help=f"list the newest N (default: {JOBS_LISTED})",
    )


def run(session: Session, args: argparse.Namespace) -> None:
    jobs = session.client().jobs(state=args.state, limit=args.limit)
    session.show_list(
        jobs,
        quiet=[job.id for job in jobs],
        text=columns(HEADINGS, map(row, jobs)),
        none=f"no job is {args.state}" if args.state else "there are no jobs",
    )
