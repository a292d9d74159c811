"""`quarantine`: bad bytes that are kept, so that their cause can be found."""

from __future__ import annotations

import argparse

from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire.units import rounded_size
from modelwire.values import Quarantined

HEADINGS = ("TIME", "SIZE", "REASON", "PATH")


def run(session: Session, _: argparse.Namespace) -> None:
    kept = session.client().quarantine()
    session.show_list(
        kept.items,
        quiet=[item.path for item in kept.items],
        text=columns(HEADINGS, map(_row, kept.items), right=("SIZE",)),
        none="nothing is in quarantine",
    )
    if kept.items and not session.raw:
        session.note(f"{rounded_size(kept.size_bytes)} in all; a sweep takes them back after 30 days")


def _row(item: Quarantined) -> tuple[str, ...]:
    return (item.time, rounded_size(item.size_bytes), item.reason, item.path)
