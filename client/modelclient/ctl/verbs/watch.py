"""`watch`: events as they happen, with the progress of the jobs that run."""

from __future__ import annotations

import argparse

from modelclient.ctl.eventline import print_event
from modelclient.ctl.progress_line import ProgressLine
from modelclient.ctl.session import Session
from modelwire.replies import Progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="show only this model")
    parser.add_argument("--job", metavar="ID", help="show only this job")


def run(session: Session, args: argparse.Namespace) -> None:
    lines: dict[str, ProgressLine] = {}
    if args.job is not None:
        session.client().job(args.job)  # an unknown job is an error: nothing would ever come of it
    wanted = session.progress or session.raw
    with session.client().subscribe(progress=wanted, model=args.model, job=args.job) as events:
        if session.json:
            session.out.begin_array()
        try:
            for event in events:
                if not isinstance(event, Progress):
                    _clear(lines)
                    print_event(session, event)
                elif session.raw:
                    session.stream(event)
                else:
                    line = lines.setdefault(event.job, ProgressLine(live=session.live))
                    line.show(event, label=event.job)
                    if event.phase == "done":
                        line.clear()
                        del lines[event.job]
        finally:
            _clear(lines)


def _clear(lines: dict[str, ProgressLine]) -> None:
    for line in lines.values():
        line.clear()
