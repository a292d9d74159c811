"""`list`: the models that are there."""

from __future__ import annotations

import argparse

from modelclient.ctl import exits, figures
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire.values import ModelView

HEADINGS = ("NAME", "SIZE", "FORMAT", "STATE", "SHA-256")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--filter",
        metavar="EXPR",
        action="append",
        default=[],
        help="only these: size>1GB, format=gguf, name~^llama, state=failed, used>30d; several have to hold together",
    )
    parser.add_argument("--sort", metavar="KEY", default=None, help="name, size, format, state or used; -KEY: reversed")


def run(session: Session, args: argparse.Namespace) -> int:
    chosen = ",".join(args.filter) or None
    listed = session.client().list_models(filter=chosen, sort=args.sort)
    if session.json:
        session.out.document(listed.models)
    elif session.events:
        for model in listed.models:
            session.out.record(model)
    elif session.quiet:
        session.out.text("".join(f"{model.name}\n" for model in listed.models))
    elif listed.models:
        session.out.text(columns(HEADINGS, map(_row, listed.models), right=("SIZE",)))
    else:
        session.note("no model is like that" if chosen else "there are no models yet: modelctl add PATH")
    for text in listed.damaged:
        session.note(f"a manifest cannot be read: {text}")
    return exits.FINE


def _row(model: ModelView) -> tuple[str, ...]:
    return (model.name, figures.size(model.size_bytes), model.format, model.state, figures.short_digest(model.blob))
