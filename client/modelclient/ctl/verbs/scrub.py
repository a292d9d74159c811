"""`scrub`: reads all blobs again, beside all other work."""

from __future__ import annotations

import argparse

from modelclient.ctl.follow import carry_out
from modelclient.ctl.output import command, count
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire import exits
from modelwire.units import rounded_size
from modelwire.values import Damaged

HEADINGS = ("NAME", "REASON")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="hash every byte, instead of comparing checksums of blocks")
    parser.add_argument("--due", action="store_true", help="only what the daemon would read now by itself")


def run(session: Session, args: argparse.Namespace) -> int:
    client = session.client()
    options = [f"--{option}" for option in ("full", "due") if getattr(args, option)]
    scrubbed = carry_out(session, lambda: client.scrub(full=args.full, due=args.due), command("scrub", [], options))
    session.show_result(
        scrubbed,
        quiet=[model.name for model in scrubbed.damaged],
        text=columns(HEADINGS, map(_row, scrubbed.damaged)) if scrubbed.damaged else "",
    )
    if not session.json:
        read = f"{count(scrubbed.checked, 'blob')} ({rounded_size(scrubbed.size_bytes)}) read"
        session.note(f"{read}, {scrubbed.failed or 'none'} of them bad")
    if scrubbed.failed:
        session.note("to bring them back: modelctl repair NAME; what is kept of the bad ones: modelctl quarantine")
    return exits.INTEGRITY if scrubbed.failed else exits.FINE


def _row(model: Damaged) -> tuple[str, ...]:
    return (model.name, model.reason)
