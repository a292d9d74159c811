"""`quarantine`: bad bytes that are kept for whoever wants to know what happened."""

from __future__ import annotations

import argparse

from modelclient.ctl import exits, figures
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire.values import Quarantined

HEADINGS = ("TIME", "SIZE", "REASON", "PATH")


def configure(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def run(session: Session, _: argparse.Namespace) -> int:
    kept = session.client().quarantine()
    if session.json:
        session.out.document(kept.items)
    elif session.events:
        for item in kept.items:
            session.out.record(item)
    elif session.quiet:
        session.out.text("".join(f"{item.path}\n" for item in kept.items))
    elif kept.items:
        session.out.text(columns(HEADINGS, map(_row, kept.items), right=("SIZE",)))
        session.note(f"{figures.size(kept.size_bytes)} in all; a sweep takes them back after 30 days")
    else:
        session.note("nothing is in quarantine")
    return exits.FINE


def _row(item: Quarantined) -> tuple[str, ...]:
    return (item.time, figures.size(item.size_bytes), item.reason, item.path)
