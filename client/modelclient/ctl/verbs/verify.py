"""`verify [NAME…|--all] [--quick]`: hashes every byte again, or compares the checksums of the blocks."""

from __future__ import annotations

import argparse

from modelclient.ctl.follow import carry_out
from modelclient.ctl.output import command, count
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire import exits
from modelwire.errors import InvalidRequest
from modelwire.units import rounded_size
from modelwire.values import Verification, Verified

HEADINGS = ("NAME", "SIZE", "FILES", "RESULT")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", default=[], help="the models (default: all)")
    parser.add_argument("--all", action="store_true", help="all models")
    parser.add_argument(
        "--quick", action="store_true", help="compare the checksums of blocks, at the speed of the disk: finds rot"
    )


def run(session: Session, args: argparse.Namespace) -> int:
    if args.names and args.all:
        raise InvalidRequest("names and --all exclude each other", hint="See `modelctl verify --help`.")
    client = session.client()
    again = command("verify", args.names, ["--quick"] if args.quick else [])
    verification = carry_out(session, lambda: client.verify(*args.names, quick=args.quick), again)
    bad = [model for model in verification.models if not model.ok]
    if session.json:
        session.out.document(verification.models)
    else:
        session.show_result(
            verification,
            quiet=[model.name for model in bad],
            text=columns(HEADINGS, map(_row, verification.models), right=("SIZE", "FILES"))
            if verification.models
            else "",
        )
    _explain(session, verification, bad)
    return exits.FINE if verification.ok else exits.INTEGRITY


def _row(model: Verified) -> tuple[str, ...]:
    result = "BAD" if not model.ok else "unchanged" if model.by == "checksums" else "good"
    return (model.name, rounded_size(model.size_bytes), str(model.files), result)


def _explain(session: Session, verification: Verification, bad: list[Verified]) -> None:
    for model in verification.models:
        if model.reason is not None:  # of a good one: what its manifest contradicts
            session.note(f"{model.name}: {model.reason}")
    if any(model.ok and model.by == "checksums" for model in verification.models):
        session.note(
            "unchanged: no bit differs from when the checksums were taken; that these are the bytes of their digests,"
            " only `modelctl verify` without --quick proves"
        )
    if bad:
        session.note("to bring them back: modelctl repair NAME; what is kept of the bad ones: modelctl quarantine")
    elif not verification.checked:
        session.note("there are no models yet: modelctl add PATH")
    elif verification.checked > len(verification.models):
        session.note(f"{count(verification.checked, 'model')} in all, all of them good")
