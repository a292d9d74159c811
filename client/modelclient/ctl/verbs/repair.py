"""`repair NAME…|--all [--from PATH]`: brings back what is damaged or missing of models."""

from __future__ import annotations

import argparse
import os

from modelclient.ctl.follow import carry_out
from modelclient.ctl.output import command, count, option
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire import exits
from modelwire.errors import InvalidRequest
from modelwire.units import rounded_size
from modelwire.values import RepairedBlob

HEADINGS = ("MODEL", "SIZE", "BLOCKS", "DAMAGED", "KEPT", "COPIED", "FETCHED")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", default=[], help="the models")
    parser.add_argument("--all", action="store_true", help="all models")
    parser.add_argument("--from", dest="path", metavar="PATH", help="a file or directory that has the same bytes")


def run(session: Session, args: argparse.Namespace) -> int:
    if bool(args.names) == args.all:
        raise InvalidRequest("give names, or --all for all models", hint="See `modelctl repair --help`.")
    path = None if args.path is None else os.path.abspath(args.path)
    client = session.client()
    options = [*(["--all"] if args.all else []), *([] if args.path is None else option("from", args.path))]
    again = command("repair", args.names, options)
    outcome = carry_out(session, lambda: client.repair(*args.names, from_path=path), again)
    blobs = outcome.repaired
    if session.json:
        session.out.document(outcome)
    else:
        session.show_result(
            outcome,
            quiet=list(dict.fromkeys(name for blob in blobs for name in blob.models)),
            text=columns(HEADINGS, map(_row, blobs), right=HEADINGS[1:]) if blobs else "",
        )
    if not blobs:
        session.note(f"nothing to repair: {count(outcome.checked, 'model')} looked at, no bit has changed")
    return exits.FINE


def _row(blob: RepairedBlob) -> tuple[str, ...]:
    sizes = (blob.kept_bytes, blob.copied_bytes, blob.fetched_bytes)
    blocks = (str(blob.blocks), str(blob.damaged_blocks))
    return (", ".join(blob.models), rounded_size(blob.size_bytes), *blocks, *map(rounded_size, sizes))
