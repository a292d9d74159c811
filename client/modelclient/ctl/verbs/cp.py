"""`cp SRC DST`: gives the same bytes a second name."""

from __future__ import annotations

import argparse

from modelclient.ctl.follow import carry_out
from modelclient.ctl.output import command
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns, line
from modelwire.units import rounded_size
from modelwire.values import Copied, PlanStep


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="the model")
    parser.add_argument("destination", metavar="DST", help="its second name")
    parser.add_argument(
        "--link", action="store_true", help="of a model of a site: link its files into the store, do not copy them"
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done")


def run(session: Session, args: argparse.Namespace) -> None:
    client = session.client()
    copied = carry_out(
        session,
        lambda: client.copy(args.source, args.destination, dry_run=args.dry_run, link=args.link),
        command(
            "cp",
            [args.source, args.destination],
            [f"--{each}" for each in ("dry-run", "link") if vars(args)[each.replace("-", "_")]],
        ),
    )
    text = (
        _plan(copied) if copied.dry_run else line(copied.name, rounded_size(copied.size_bytes), f"as {copied.source}")
    )
    session.show_result(copied, quiet=[copied.name], text=text)


def _plan(copied: Copied) -> str:
    return columns(("STEP", "SIZE", "PATH"), map(_row, copied.plan), right=("SIZE",))


def _row(step: PlanStep) -> tuple[str, str, str]:
    return (step.action, rounded_size(step.size_bytes), step.path)
