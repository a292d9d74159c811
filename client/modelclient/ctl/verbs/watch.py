"""`watch`: what happens, as it happens, with the progress of whatever runs."""

from __future__ import annotations

import argparse

from modelclient.ctl import exits
from modelclient.ctl.bar import ProgressLine
from modelclient.ctl.eventline import print_event
from modelclient.ctl.session import Session
from modelwire.replies import Progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", default=None, help="only this model")
    parser.add_argument("--job", metavar="ID", default=None, help="only this job")


def run(session: Session, args: argparse.Namespace) -> int:
    lines: dict[str, ProgressLine] = {}
    raw = session.json or session.events
    if args.job is not None:
        session.client().job(args.job)  # of one that is not there nothing would ever come
    wanted = session.progress or raw
    with session.client().subscribe(progress=wanted, model=args.model, job=args.job) as events:
        try:
            for event in events:
                if not isinstance(event, Progress):
                    _clear(lines)
                    print_event(session, event)
                elif raw:
                    session.out.record(event)
                else:
                    line = lines.setdefault(event.job, ProgressLine(live=session.live))
                    line.show(event, label=event.job)
                    if event.phase == "done":
                        line.clear()
                        del lines[event.job]
        finally:
            _clear(lines)
    return exits.FINE


def _clear(lines: dict[str, ProgressLine]) -> None:
    for line in lines.values():
        line.clear()
