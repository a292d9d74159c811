"""`updates`: the update commands of this machine, and what became of them."""

from __future__ import annotations

import argparse

from modelclient.ctl.arguments import number
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelclient.ctl.verbs.fit import WORDS as WHAT
from modelclient.ctl.verbs.update import WORDS
from modelwire.requests import UPDATES_LISTED
from modelwire.values import PendingUpdate, Updated

HEADINGS = ("COMMAND", "VERSION", "OUTCOME", "WHEN", "WHY")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n",
        dest="limit",
        metavar="N",
        type=number(1, 1000),
        default=UPDATES_LISTED,
        help=f"list the newest N (default: {UPDATES_LISTED})",
    )


def run(session: Session, args: argparse.Namespace) -> None:
    listed = session.client().updates(limit=args.limit)
    ids = [each.command_id for each in listed.pending] + [each.command_id for each in listed.updates]
    rows = [*map(_pending, listed.pending), *map(_row, listed.updates)]
    session.show(
        listed,
        quiet=ids,
        text=columns(HEADINGS, rows) if rows else "",
    )
    if not session.raw:
        labels = f", with the labels {', '.join(listed.labels)}" if listed.labels else ""
        session.note(f"commands name this machine {listed.node}{labels}")


def _pending(update: PendingUpdate) -> tuple[str, ...]:
    return (update.command_id, update.version, "not ended", "", f"job {update.job}")


def _row(update: Updated) -> tuple[str, ...]:
    why = "" if update.error is None else update.error.message
    why = why or ", ".join(WHAT.get(line.what, line.what) for line in update.lines)
    return (update.command_id, update.version, WORDS[update.outcome], update.at, why)
