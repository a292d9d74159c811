"""`show NAME`: everything about one model."""

from __future__ import annotations

import argparse
import json
from typing import get_args

from modelclient.ctl.modelview import size_of, state_of
from modelclient.ctl.output import short_digest
from modelclient.ctl.provenance import SHOWN, chain, chain_text
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns, line, pairs
from modelwire.errors import InvalidRequest, NotFound
from modelwire.units import rounded_count, rounded_size
from modelwire.values import EstimatedVram, Holder, ModelFacts, ModelFile, ModelView, Provenanced
from modelwire.vocabulary import CACHE_TYPE_DEFAULT, CacheType


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the model")
    parser.add_argument(
        "--key",
        metavar="KEY",
        action="append",
        default=[],
        help="the value of this key of the file's header instead, or those of all keys like general.*; repeat it",
    )
    parser.add_argument(
        "--provenance",
        action="store_true",
        help="the chain of its verifications instead: source, version, digests, user, time",
    )
    parser.add_argument("--tensors", action="store_true", help="the list of the tensors instead")
    parser.add_argument(
        "--context",
        metavar="N",
        type=int,
        help="estimate the video memory for so many tokens (default: the most)",
    )
    parser.add_argument(
        "--cache-type",
        choices=get_args(CacheType),
        default=CACHE_TYPE_DEFAULT,
        help=f"the type of the cache that is estimated ({CACHE_TYPE_DEFAULT})",
    )


def run(session: Session, args: argparse.Namespace) -> None:
    if args.provenance:
        if args.key or args.tensors:
            raise InvalidRequest(
                "--provenance shows nothing of the header", hint="Leave out --key and --tensors, or show them alone."
            )
        _show_provenance(session, session.client().show(args.name, provenance=True))
        return
    model = session.client().show(
        args.name, keys=tuple(args.key), tensors=args.tensors, context=args.context, cache_type=args.cache_type
    )
    _check_keys(model, args.key)
    session.show(model, quiet=[model.name], text=_header(model, args) if args.key or args.tensors else _text(model))


def _show_provenance(session: Session, model: ModelView) -> None:
    links = chain(model)
    session.show(links, quiet=[model.name], text=chain_text(links) if links else "")
    if not links:
        session.note(f"nothing is recorded of '{model.name}': to hash its bytes, run `modelctl verify`")
    elif len(links) >= SHOWN:
        session.note(f"only the newest {SHOWN} outcomes are shown")


def _check_keys(model: ModelView, keys: list[str]) -> None:
    for key in keys:
        if not any(wild in key for wild in "*?[") and key not in (model.header or {}):
            raise NotFound(
                f"the header of '{model.name}' has no key {key!r}",
                hint=f"`modelctl show {model.name} --key '*'` lists all of them.",
                details={"name": model.name, "key": key},
            )


def _header(model: ModelView, args: argparse.Namespace) -> str:
    """Of one key that is text the value alone, line by line: it may be a chat template."""
    found = model.header or {}
    only = found.get(args.key[0]) if len(args.key) == 1 else None
    if isinstance(only, str) and not args.tensors:
        return "".join(map(line, only.split("\n")))
    text = "".join(line(f"{key} = {json.dumps(value, ensure_ascii=False)}") for key, value in found.items())
    if args.tensors:
        rows = ((each.name, each.type, "x".join(map(str, each.shape)), str(each.size_bytes)) for each in model.tensors)
        text += columns(("TENSOR", "TYPE", "SHAPE", "BYTES"), rows, right=("BYTES",))
    return text


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


def _facts(facts: ModelFacts | None) -> list[tuple[str, str | None]]:
    """What the header says."""
    if facts is None:
        return []
    parameters, vocabulary = facts.parameters, facts.vocabulary
    of_tokens = "" if vocabulary is None else f", {vocabulary} tokens"
    return [
        ("opaque", facts.opaque),
        ("kind", None if facts.kind == "model" else facts.kind),
        ("called", facts.name),
        ("architecture", facts.architecture),
        ("parameters", None if parameters is None else _counted(parameters)),
        ("quantization", facts.quantization),
        ("context", None if facts.context_length is None else f"{facts.context_length} tokens"),
        ("layers", None if facts.layers is None else f"{facts.layers}{_wide(facts.embedding_length)}"),
        ("tokenizer", None if facts.tokenizer is None else f"{facts.tokenizer}{of_tokens}"),
        ("chat template", "yes" if facts.chat_template else None),
        ("byte order", "big-endian" if facts.big_endian else None),
    ]


def _wide(length: int | None) -> str:
    return "" if length is None else f", {length} wide"


def _estimated(vram: EstimatedVram | None) -> str | None:
    if vram is None:
        return None
    by_header = f"with {vram.context} tokens {vram.header} MB, by the header" if vram.header is not None else ""
    by_formula = f"{vram.formula} MB by a rule of thumb" if vram.formula is not None else ""
    return "; ".join(filter(None, (by_header, by_formula)))


def _counted(parameters: int) -> str:
    return str(parameters) if parameters < 1000 else f"{rounded_count(parameters)} ({parameters})"


def _size(model: ModelView) -> str | None:
    rounded = size_of(model)
    return f"{rounded} ({model.size_bytes} bytes)" if rounded else None


def _rows(model: ModelView) -> list[tuple[str, str | None]]:
    source = model.source
    origin = (source.registry, source.repo, source.revision, source.filename) if source else ()
    return [
        ("name", model.name),
        ("known as", ", ".join(model.ids) or None),
        ("state", state_of(model)),
        ("reason", model.reason),
        ("site", model.site),
        ("path", model.path),
        ("size", _size(model)),
        ("format", model.format),
        *_facts(model.facts),
        ("video memory", _estimated(model.estimated_vram_mb)),
        ("file name", model.file_name),
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
