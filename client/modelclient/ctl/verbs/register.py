"""`register MANIFEST`: makes a model known before its bytes are here."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from modelclient.ctl.session import Session
from modelclient.ctl.table import line
from modelwire.errors import InvalidRequest, SourceNotFound
from modelwire.limits import DOCUMENT


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", metavar="MANIFEST", help="a file with the JSON document that describes the model")
    parser.add_argument("--name", help="the name of the model (default: its model_id)")


def run(session: Session, args: argparse.Namespace) -> None:
    manifest = _read(args.manifest)
    done = session.client().register(manifest, name=args.name)
    state = "registered" if done.changed else "registered already"
    session.show(done, quiet=[done.name], text=line(done.name, state))


def _read(path: str) -> dict[str, Any]:
    """Twice the limit at most: the daemon counts without spaces."""
    try:
        with open(path, "rb") as file:
            data = file.read(2 * DOCUMENT + 1)
    except OSError as fault:
        raise SourceNotFound(f"{path} cannot be read: {fault.strerror}", hint="Check the path.") from None
    if len(data) > 2 * DOCUMENT:
        raise InvalidRequest(f"{path} has more than {2 * DOCUMENT} bytes", hint="Give the document of one model.")
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as fault:
        raise InvalidRequest(
            f"{path} is no JSON object: {fault}", hint="`modelctl template ID` prints such a document."
        ) from None
