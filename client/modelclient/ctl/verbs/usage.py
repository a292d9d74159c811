"""`usage`: the space that the models take."""

from __future__ import annotations

import argparse

from modelclient.ctl.session import Session
from modelclient.ctl.table import columns, pairs
from modelwire.units import rounded_size
from modelwire.values import DiskUsage, ModelUsage, Usage

HEADINGS = ("NAME", "SIZE", "OWN", "SHARED")


def run(session: Session, _: argparse.Namespace) -> None:
    usage = session.client().usage()
    table = columns(HEADINGS, map(_row, usage.models), right=HEADINGS[1:]) + "\n" if usage.models else ""
    session.show(usage, quiet=[str(usage.on_disk_bytes or usage.physical_bytes)], text=table + pairs(_totals(usage)))


def _row(model: ModelUsage) -> tuple[str, ...]:
    return (
        model.name,
        rounded_size(model.logical_bytes),
        rounded_size(model.own_bytes),
        rounded_size(model.shared_bytes),
    )


def _totals(usage: Usage) -> list[tuple[str, str | None]]:
    """A total of zero is left out, except for the first two."""
    disk = usage.disk or DiskUsage()
    rest = [
        ("shared by several", usage.shared_bytes),
        ("of no model", usage.unnamed_bytes),
        ("in quarantine", usage.quarantine_bytes),
        ("partial downloads", usage.partial_bytes),
        ("other unfinished", usage.staging_bytes - usage.partial_bytes),
        ("trees", disk.trees),
        ("catalogue", disk.catalogue),
        ("everything else", disk.other),
    ]
    return [
        ("all models", rounded_size(usage.logical_bytes)),
        ("on the disk", rounded_size(usage.on_disk_bytes or usage.physical_bytes)),
        *((word, rounded_size(count) if count else None) for word, count in rest),
        ("free", None if usage.free_bytes is None else rounded_size(usage.free_bytes)),
    ]
