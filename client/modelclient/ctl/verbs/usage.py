"""`usage`: what the models take."""

from __future__ import annotations

import argparse

from modelclient.ctl import exits, figures
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns, pairs
from modelwire.values import ModelUsage, Usage

HEADINGS = ("NAME", "SIZE", "OWN", "SHARED")


def configure(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def run(session: Session, _: argparse.Namespace) -> int:
    usage = session.client().usage()
    if session.json or session.events:
        (session.out.document if session.json else session.out.record)(usage)
    elif session.quiet:
        session.out.line(str(usage.physical_bytes))
    else:
        if usage.models:
            session.out.text(columns(HEADINGS, map(_row, usage.models), right=HEADINGS[1:]) + "\n")
        session.out.text(pairs(_totals(usage)))
    return exits.FINE


def _row(model: ModelUsage) -> tuple[str, ...]:
    return (
        model.name,
        figures.size(model.logical_bytes),
        figures.size(model.own_bytes),
        figures.size(model.shared_bytes),
    )


def _totals(usage: Usage) -> list[tuple[str, str | None]]:
    """What is nothing is left out, but for the first two."""
    rest = [
        ("shared by several", usage.shared_bytes),
        ("of no model", usage.unnamed_bytes),
        ("in quarantine", usage.quarantine_bytes),
        ("unfinished", usage.staging_bytes),
    ]
    return [
        ("all models", figures.size(usage.logical_bytes)),
        ("on the disk", figures.size(usage.physical_bytes)),
        *((word, figures.size(count) if count else None) for word, count in rest),
        ("free", None if usage.free_bytes is None else figures.size(usage.free_bytes)),
    ]
