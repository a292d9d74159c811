"""`list`: the models of the store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from modelclient.ctl.modelview import size_of, state_of
from modelclient.ctl.output import short_digest
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire.units import rounded_count
from modelwire.values import ModelView

HEADINGS = ("NAME", "SIZE", "PARAMS", "QUANT", "FORMAT", "STATE", "SHA-256")
_NUMBERS = ("SIZE", "PARAMS")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--filter",
        metavar="EXPR",
        action="append",
        default=[],
        help="list only these: size>1GB, format=gguf, name~^llama, state=failed, used>30d; repeat it to narrow further",
    )
    parser.add_argument("--fits", action="store_true", help="list only models whose requirements this machine meets")
    parser.add_argument("--sort", metavar="KEY", help="sort by name, size, format, state or used; -KEY reverses")


def run(session: Session, args: argparse.Namespace) -> None:
    chosen = ",".join(args.filter) or None
    listed = session.client().list_models(filter=chosen, sort=args.sort, fits=args.fits)
    session.show_list(
        listed.models,
        quiet=[model.name for model in listed.models],
        text=_table(listed.models),
        none="no model is like that" if chosen or args.fits else "there are no models yet: modelctl add PATH",
    )
    for text in listed.damaged:
        session.note(f"a manifest cannot be read: {text}")


def _table(models: Sequence[ModelView]) -> str:
    """With a column for the sites when one of the models is at a site."""
    if not any(model.site for model in models):
        return columns(HEADINGS, map(_row, models), right=_NUMBERS)
    return columns((*HEADINGS, "SITE"), ((*_row(model), model.site or "") for model in models), right=_NUMBERS)


def _row(model: ModelView) -> tuple[str, ...]:
    known = model.model or {}
    billions = known.get("params_billions")
    return (
        model.name,
        size_of(model),
        "" if billions is None else rounded_count(round(billions * 1e9)),
        known.get("quantization", ""),
        model.format,
        state_of(model),
        short_digest(model.blob),
    )
