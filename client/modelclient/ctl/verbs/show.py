"""`show NAME`: everything about one model."""

from __future__ import annotations

import argparse

from modelclient.ctl.output import short_digest
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns, pairs
from modelwire.units import rounded_size
from modelwire.values import Holder, ModelFile, ModelView, Provenanced


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the model")


def run(session: Session, args: argparse.Namespace) -> None:
    model = session.client().show(args.name)
    session.show(model, quiet=[model.name], text=_text(model))


def _text(model: ModelView) -> str:
    text = pairs(_rows(model))
    if model.files:
        text += "\n" + columns(("FILE", "SIZE", "ROLE", "SHA-256"), map(_row, model.files), right=("SIZE",))
    if model.holders:
        text += "\n" + columns(("HELD BY", "FOR", "SINCE", "UNTIL", "LEASE"), map(_holder, model.holders))
    if model.history:
        differing = any(_unexpected(outcome) for outcome in model.history)
        headings = ("WHEN", "OUTCOME", "SHA-256", *(("EXPECTED",) if differing else ()), "BY", "FROM", "WITH")
        text += "\n" + columns(headings, (_past(outcome, differing) for outcome in model.history))
    return text


def _holder(holder: Holder) -> tuple[str, ...]:
    by = f"uid {holder.uid}" + ("" if holder.pid is None else f", pid {holder.pid}")
    return (by, holder.purpose or "", holder.since, holder.expires_at or "it is released", holder.lease)


def _unexpected(outcome: Provenanced) -> bool:
    return outcome.actual is not None and outcome.expected is not None and outcome.actual != outcome.expected


def _past(outcome: Provenanced, differing: bool) -> tuple[str, ...]:
    by = "" if outcome.peer is None else f"uid {outcome.peer}"
    found = outcome.actual or outcome.blob
    return (
        outcome.time,
        outcome.outcome,
        short_digest(found),
        *((short_digest(outcome.expected or "") if _unexpected(outcome) else "",) if differing else ()),
        by,
        _from(outcome),
        outcome.tool or "",
    )


def _from(outcome: Provenanced) -> str:
    """The source, and which places gave the bytes when they came over a network."""
    gave = ", ".join(f"{rounded_size(size)} by {name}" for name, size in (outcome.served or {}).items())
    return f"{outcome.source or ''} ({gave})" if gave else outcome.source or ""


def _row(file: ModelFile) -> tuple[str, ...]:
    return (file.path, rounded_size(file.size_bytes), file.role or "", short_digest(file.blob))


def _rows(model: ModelView) -> list[tuple[str, str | None]]:
    source = model.source
    origin = (source.registry, source.repo, source.revision, source.filename) if source else ()
    return [
        ("name", model.name),
        ("state", model.state),
        ("reason", model.reason),
        ("site", model.site),
        ("path", model.path),
        ("size", f"{rounded_size(model.size_bytes)} ({model.size_bytes} bytes)"),
        ("format", model.format),
        ("blob", model.blob),
        ("license", model.license),
        ("source", " ".join(part for part in origin if part)),
        ("owner", "not known" if model.owner is None else f"uid {model.owner}"),
        ("pinned", "yes" if model.pinned else None),
        ("made by", model.produced_by),
        ("made at", model.produced_at),
        ("verified", model.verified_at),
        ("last used", model.used_at),
    ]
