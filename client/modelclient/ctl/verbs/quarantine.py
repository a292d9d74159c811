"""`quarantine`: bad bytes that are kept, so that their cause can be found; `quarantine rm` removes them."""

from __future__ import annotations

import argparse

from modelclient.ctl.follow import carry_out
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelclient.ctl.verbs import sweep
from modelwire.errors import InvalidRequest
from modelwire.units import rounded_size
from modelwire.values import Quarantined

HEADINGS = ("TIME", "SIZE", "REASON", "PATH")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=("rm",), help="rm: remove all of them (default: list them)")
    parser.add_argument("--dry-run", action="store_true", help="with rm: only show what would be removed")


def run(session: Session, args: argparse.Namespace) -> None:
    if args.what == "rm":
        client, again = session.client(), "modelctl quarantine rm"
        sweep.show(session, carry_out(session, lambda: client.sweep(quarantine=True, dry_run=args.dry_run), again))
        return
    if args.dry_run:
        raise InvalidRequest("--dry-run goes with rm", hint="Use `modelctl quarantine rm --dry-run`.")
    kept = session.client().quarantine()
    session.show_list(
        kept.items,
        quiet=[item.path for item in kept.items],
        text=columns(HEADINGS, map(_row, kept.items), right=("SIZE",)),
        none="nothing is in quarantine",
    )
    if kept.items and not session.raw:
        size = rounded_size(kept.size_bytes)
        session.note(f"{size} in all; a sweep removes them after 30 days, `modelctl quarantine rm` removes them now")


def _row(item: Quarantined) -> tuple[str, ...]:
    return (item.time, rounded_size(item.size_bytes), item.reason, item.path)
