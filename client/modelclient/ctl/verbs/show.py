"""`show NAME`: everything about one model."""

from __future__ import annotations

import argparse

from modelclient.ctl import exits, figures
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns, pairs
from modelwire.values import ModelFile, ModelView, Provenanced


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the model")


def run(session: Session, args: argparse.Namespace) -> int:
    model = session.client().show(args.name)
    if session.json or session.events:
        (session.out.document if session.json else session.out.record)(model)
        return exits.FINE
    if session.quiet:
        session.out.line(model.name)
        return exits.FINE
    session.out.text(pairs(_rows(model)))
    if model.files:
        session.out.text("\n" + columns(("FILE", "SIZE", "ROLE", "SHA-256"), map(_row, model.files), right=("SIZE",)))
    if model.history:
        differing = any(_unexpected(outcome) for outcome in model.history)
        headings = ("WHEN", "OUTCOME", "SHA-256", *(("EXPECTED",) if differing else ()), "BY", "FROM", "WITH")
        session.out.text("\n" + columns(headings, (_past(outcome, differing) for outcome in model.history)))
    return exits.FINE


def _unexpected(outcome: Provenanced) -> bool:
    return outcome.actual is not None and outcome.expected is not None and outcome.actual != outcome.expected


def _past(outcome: Provenanced, differing: bool) -> tuple[str, ...]:
    by = "" if outcome.peer is None else f"uid {outcome.peer}"
    found = outcome.actual or outcome.blob
    return (
        outcome.time,
        outcome.outcome,
        figures.short_digest(found),
        *((figures.short_digest(outcome.expected or "") if _unexpected(outcome) else "",) if differing else ()),
        by,
        _from(outcome),
        outcome.tool or "",
    )


def _from(outcome: Provenanced) -> str:
    """What it was called, and who gave the bytes when a network did."""
    gave = ", ".join(f"{figures.size(size)} by {name}" for name, size in (outcome.served or {}).items())
    return f"{outcome.source or ''} ({gave})" if gave else outcome.source or ""


def _row(file: ModelFile) -> tuple[str, ...]:
    return (file.path, figures.size(file.size_bytes), file.role or "", figures.short_digest(file.blob))


def _rows(model: ModelView) -> list[tuple[str, str | None]]:
    source = model.source
    origin = (source.registry, source.repo, source.revision, source.filename) if source else ()
    return [
        ("name", model.name),
        ("state", model.state),
        ("reason", model.reason),
        ("path", model.path),
        ("size", f"{figures.size(model.size_bytes)} ({model.size_bytes} bytes)"),
        ("format", model.format),
        ("blob", model.blob),
        ("license", model.license),
        ("source", " ".join(part for part in origin if part)),
        ("made by", model.produced_by),
        ("made at", model.produced_at),
        ("verified", model.verified_at),
        ("last used", model.used_at),
    ]
