"""`attach ID`: follows a job until it ends."""

from __future__ import annotations

import argparse
from typing import Final

from modelclient.ctl.follow import follow
from modelclient.ctl.jobview import NOT_DONE, failure, outcome, print_job
from modelclient.ctl.jobview import configure as configure
from modelclient.ctl.output import complain
from modelclient.ctl.session import Session
from modelwire import exits

_ASK_AGAIN: Final = {
    "model.pull": "Run the `modelctl pull` that asked for it again. It goes on from what has arrived, which is kept.",
    "model.add": "Run the `modelctl add` that asked for it again.",
}
"""What to do after a job of this kind was cancelled: attaching to it again would only report the same."""


def run(session: Session, args: argparse.Namespace) -> int:
    client = session.client()
    try:
        if client.job(args.job).state == "paused":
            session.note(f"job {args.job} is paused; it goes on after: modelctl resume {args.job}")
        job = follow(session, client.attach(args.job), attached=True)
    except KeyboardInterrupt:
        complain(f"modelctl: left job {args.job}, which goes on without you")
        complain(f"hint: See what it does with `modelctl job {args.job}`, or end it with `modelctl cancel {args.job}`.")
        raise
    if (error := failure(job)) is not None:
        if job.state == "cancelled":
            error.hint = _ASK_AGAIN.get(job.kind, error.hint)
        raise error
    print_job(session, job)
    return exits.FAILED if outcome(job) in NOT_DONE else exits.FINE
