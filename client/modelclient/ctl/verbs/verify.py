"""`verify [NAME…|--all] [--quick]`: hashes every byte again, or compares the checksums of the blocks.

`verify --signature FILE (--key PUB | --roots PEM) NAME`: verifies who signed the files of a model.
"""

from __future__ import annotations

import argparse

from modelclient.ctl.arguments import content_of
from modelclient.ctl.follow import carry_out
from modelclient.ctl.output import command, count, option
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns, pairs
from modelwire import exits, limits
from modelwire.errors import DigestMismatch, InvalidRequest
from modelwire.units import rounded_size
from modelwire.values import SignatureVerified, Verification, Verified

HEADINGS = ("NAME", "SIZE", "FILES", "RESULT")

_SEE_HELP = "See `modelctl verify --help`."

_DIFFERENCES = ("changed", "renamed", "missing", "unsigned")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", default=[], help="the models (default: all)")
    parser.add_argument("--all", action="store_true", help="all models")
    parser.add_argument(
        "--quick", action="store_true", help="compare the checksums of blocks, at the speed of the disk: finds rot"
    )
    parser.add_argument(
        "--signature", metavar="FILE", help="verify instead that this signature of the OpenSSF is for the model's files"
    )
    parser.add_argument("--key", metavar="PUB", help="with --signature: the public key of the signer, in PEM")
    parser.add_argument(
        "--roots", metavar="PEM", help="with --signature: root certificates, one of which vouches for the signer"
    )


def run(session: Session, args: argparse.Namespace) -> int:
    if args.names and args.all:
        raise InvalidRequest("names and --all exclude each other", hint=_SEE_HELP)
    if args.signature is not None or args.key is not None or args.roots is not None:
        return _verify_signature(session, args)
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


def _verify_signature(session: Session, args: argparse.Namespace) -> int:
    if args.signature is None or (args.key is None) == (args.roots is None) or args.quick or len(args.names) != 1:
        raise InvalidRequest(
            "a signature is verified for one model, with --signature and one of --key and --roots", hint=_SEE_HELP
        )
    (name,) = args.names
    signature = content_of(args.signature, "signature", limits.SIGNATURE)
    key = None if args.key is None else content_of(args.key, "key", limits.SIGNERS)
    roots = None if args.roots is None else content_of(args.roots, "certificates", limits.SIGNERS)
    client = session.client()
    signer = option("roots", args.roots) if args.key is None else option("key", args.key)
    again = command("verify", args.names, [*option("signature", args.signature), *signer])
    try:
        found = carry_out(session, lambda: client.verify_signature(name, signature, key=key, roots=roots), again)
    except DigestMismatch as fault:
        if not session.raw:
            _show_differences(session, fault)
        raise
    session.show_result(found, quiet=[], text=pairs(_signed_rows(found)))
    return exits.FINE


def _signed_rows(found: SignatureVerified) -> list[tuple[str, str | None]]:
    looked = "their bytes, read now" if found.read else "their recorded digests, without reading them"
    return [
        ("name", found.name),
        ("signature", "holds"),
        ("signer", found.subject),
        (found.by, found.signer),
        ("files", f"{count(len(found.verified), 'file')}, compared by {looked}"),
        ("not signed", ", ".join(found.not_signed) or None),
    ]


def _show_differences(session: Session, fault: DigestMismatch) -> None:
    for kind in _DIFFERENCES:
        for path in fault.details.get(kind, ()):
            session.note(f"{kind}: {' is here as '.join(path) if isinstance(path, list) else path}")
