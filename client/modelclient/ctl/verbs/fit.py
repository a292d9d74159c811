"""`fit NAME`: whether this machine has what a model needs."""

from __future__ import annotations

import argparse
from typing import Final

from modelclient.ctl.arguments import size
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire import exits
from modelwire.values import FitLine, FitView

HEADINGS = ("WHAT", "NEEDED", "HERE", "VERDICT", "NOTE")

WORDS: Final = {
    "vram": "video memory",
    "ram": "memory",
    "architecture": "architecture",
    "providers": "provider",
    "recommended_vram": "video memory, recommended",
    "estimated_vram": "video memory, estimated",
    "estimated_ram": "memory, estimated",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the model")
    parser.add_argument("--vram", metavar="SIZE", type=size, help="assume so much video memory, such as 8GiB")
    parser.add_argument("--ram", metavar="SIZE", type=size, help="assume so much memory")


def run(session: Session, args: argparse.Namespace) -> int:
    fit = session.client().fit(args.name, vram_mb=_megabytes(args.vram), ram_mb=_megabytes(args.ram))
    assumed = args.vram is not None or args.ram is not None
    session.show(fit, quiet=[fit.name] if fit.fits else [], text=columns(HEADINGS, map(_row, fit.lines)))
    if not session.raw:
        session.note(_sentence(fit, "such a machine" if assumed else "this machine"))
        for line in fit.lines:
            if line.hint is not None:
                session.note(f"hint: {line.hint}")
    return exits.FINE if fit.fits else exits.FAILED


def _megabytes(size_bytes: int | None) -> int | None:
    return None if size_bytes is None else size_bytes >> 20


def _row(line: FitLine) -> tuple[str, ...]:
    remark = None if line.decides or line.verdict == "fits" else "does not decide"
    note = "; ".join(filter(None, (line.note, remark)))
    return (WORDS.get(line.what, line.what), amount(line.needed), amount(line.here), line.verdict, note)


def amount(amount: int | tuple[str, ...] | None) -> str:
    if amount is None:
        return "not known"
    if isinstance(amount, int):
        return f"{amount} MB" if amount else "none"
    return ", ".join(amount) or "none"


def _sentence(fit: FitView, machine: str) -> str:
    usual = "" if fit.requirements_from == "document" else "; it states no requirements, so these are the usual ones"
    if fit.fits:
        return f"{fit.name} fits {machine}{usual}"
    missing = [WORDS.get(line.what, line.what) for line in fit.lines if line.decides and line.verdict != "fits"]
    return f"{fit.name} does not fit {machine}, by its {' and its '.join(missing)}{usual}"
