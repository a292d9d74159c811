"""`sweep`: takes back what nothing holds."""

from __future__ import annotations

import argparse

from modelclient.ctl import exits, figures
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelclient.ctl.telling import carry_out, tell
from modelwire.values import Victim

HEADINGS = ("KIND", "SIZE", "REASON", "PATH")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", default=False, help="only tell what would go")


def run(session: Session, args: argparse.Namespace) -> int:
    client = session.client()
    swept = carry_out(session, lambda: client.sweep(dry_run=args.dry_run), "modelctl sweep")
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
    return exits.FINE


def _row(victim: Victim) -> tuple[str, ...]:
    return (victim.kind, figures.size(victim.size_bytes), victim.reason, victim.path)
