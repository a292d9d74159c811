"""The chain of what was verified of a model: each outcome with its source, no claim about bytes that nobody read."""

from __future__ import annotations

from typing import Any, Final

from modelclient.ctl.output import short_digest
from modelclient.ctl.table import columns
from modelwire.values import ModelView, Provenanced

SHOWN: Final = 10_000
"""Outcomes of one model that a daemon gives at most, the newest."""

_VERSION: Final = ("revision", "validator")

_HEADINGS: Final = ("WHEN", "OUTCOME", "EXPECTED", "ACTUAL", "BY", "FROM", "REVISION", "VALIDATOR", "WITH")


def chain(model: ModelView) -> list[dict[str, Any]]:
    """The oldest first. All keys are always there: what is not known is null, and so is `actual` when the outcome
    hashed no byte. A revision and a validator are those of the moment, and not what the manifest says today."""
    return [_link(outcome) for outcome in model.history]


def _link(outcome: Provenanced) -> dict[str, Any]:
    details = outcome.details or {}
    return {
        "time": outcome.time,
        "outcome": outcome.outcome,
        "blob": outcome.blob,
        "source": outcome.source,
        **{word: details.get(word) for word in _VERSION},
        "expected": outcome.expected,
        "actual": outcome.actual,
        "asker": outcome.peer,
        "tool": outcome.tool,
        "job": outcome.job,
        "served": outcome.served,
        "details": {word: said for word, said in details.items() if word not in _VERSION} or None,
    }


def chain_text(links: list[dict[str, Any]]) -> str:
    return columns(_HEADINGS, map(_row, links))


def _row(link: dict[str, Any]) -> tuple[str, ...]:
    return (
        link["time"],
        link["outcome"],
        short_digest(link["expected"] or ""),
        "not read" if link["actual"] is None else short_digest(link["actual"]),
        "" if link["asker"] is None else f"uid {link['asker']}",
        link["source"] or _signer(link["details"] or {}),
        link["revision"] or "",
        link["validator"] or "",
        link["tool"] or "",
    )


def _signer(details: dict[str, Any]) -> str:
    """Of a signature, which is from no place."""
    signer = details.get("subject") or details.get("signer")
    return "" if signer is None else f"signed by {signer}"
