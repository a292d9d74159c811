"""`sweep`: takes back what nothing holds."""

from __future__ import annotations

import argparse

from modelclient.ctl import exits, figures
from modelclient.ctl.options import seconds
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelclient.ctl.telling import carry_out, tell
from modelwire.values import Swept, Victim

CENTURY = 36500 * 86400

HEADINGS = ("KIND", "SIZE", "REASON", "PATH")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", default=False, help="only tell what would go")
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=seconds(0, CENTURY),
        default=None,
        help="what nothing has held for this long may go; 0: what was removed just now too (default: `[store] grace`)",
    )


def run(session: Session, args: argparse.Namespace) -> int:
    client = session.client()
    swept = carry_out(session, lambda: client.sweep(dry_run=args.dry_run, grace=args.grace), "modelctl sweep")
    tell(
        session,
        swept,
        quiet="".join(f"{victim.path}\n" for victim in swept.victims),
        text=columns(HEADINGS, map(_row, swept.victims), right=("SIZE",)) if swept.victims else "",
    )
    for text in swept.notes:
        session.note(text)
    done = "would be freed" if swept.dry_run else "freed"
    if not session.json:
        session.note(f"{figures.size(swept.freed_bytes)} {done}, {figures.count(swept.kept, 'blob')} kept")
        if swept.waiting:
            session.note(_still_waiting(swept))
    return exits.FINE


def _still_waiting(swept: Swept) -> str:
    blobs = f"{figures.count(swept.waiting, 'blob')} ({figures.size(swept.waiting_bytes)})"
    stays, them = ("stays", "it") if swept.waiting == 1 else ("stay", "them")
    span = figures.duration(swept.waiting_s or 0.0)
    return f"{blobs} that no model names {stays} up to {span} more: `modelctl sweep --grace 0` takes {them} now"


def _row(victim: Victim) -> tuple[str, ...]:
    return (victim.kind, figures.size(victim.size_bytes), victim.reason, victim.path)
