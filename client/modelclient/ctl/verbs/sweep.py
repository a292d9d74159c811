"""`sweep`: removes what nothing holds."""

from __future__ import annotations

import argparse

from modelclient.ctl.arguments import seconds
from modelclient.ctl.follow import carry_out
from modelclient.ctl.output import command, count, option
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire.units import LONGEST, rounded_duration, rounded_size
from modelwire.values import Swept, Victim

HEADINGS = ("KIND", "SIZE", "REASON", "PATH")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=seconds(0, LONGEST),
        help="remove what nothing has held for this long, such as 3600 or 1h; 0: also what lost its name just now"
        " (default: the [store] grace of the configuration)",
    )
    parser.add_argument(
        "--partials", action="store_true", help="also remove recent downloads that no open job goes on with"
    )


def run(session: Session, args: argparse.Namespace) -> None:
    client = session.client()
    again = ["--dry-run"] if args.dry_run else []
    again += option("grace", f"{args.grace:.15g}") if args.grace is not None else []
    again += ["--partials"] if args.partials else []
    swept = carry_out(
        session,
        lambda: client.sweep(dry_run=args.dry_run, grace=args.grace, partials=args.partials),
        command("sweep", [], again),
    )
    show(session, swept, kept=f", {count(swept.kept, 'blob')} kept")


def show(session: Session, swept: Swept, *, kept: str = "") -> None:
    """What went, and what became of the space. `kept` is what stays."""
    session.show_result(
        swept,
        quiet=[victim.path for victim in swept.victims],
        text=columns(HEADINGS, map(_row, swept.victims), right=("SIZE",)) if swept.victims else "",
    )
    for text in swept.notes:
        session.note(text)
    done = "would be freed" if swept.dry_run else "freed"
    if not session.json:
        session.note(f"{rounded_size(swept.freed_bytes)} {done}{kept}")
        if swept.waiting:
            session.note(_still_waiting(swept))


def _still_waiting(swept: Swept) -> str:
    blobs = f"{count(swept.waiting, 'blob')} ({rounded_size(swept.waiting_bytes)})"
    stays, them = ("stays", "it") if swept.waiting == 1 else ("stay", "them")
    span = rounded_duration(swept.waiting_s or 0.0)
    return f"{blobs} that no model names {stays} up to {span} more: `modelctl sweep --grace 0` takes {them} now"


def _row(victim: Victim) -> tuple[str, ...]:
    return (victim.kind, rounded_size(victim.size_bytes), victim.reason, victim.path)
