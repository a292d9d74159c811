"""The whole wire as JSON Schema, made from the types: what `daemon.describe` answers and `protocol/schema.json` holds.

`python -m modelwire.schema` prints it; the tests compare the committed file with it, so neither can drift.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from inspect import cleandoc
from typing import Any

import msgspec

from modelwire import limits, replies, vocabulary
from modelwire.errors import BY_CODE
from modelwire.operations import OPERATIONS

_REF = "#/$defs/{name}"
_REPLIES = (
    replies.Hello,
    replies.Accepted,
    replies.Progress,
    replies.Event,
    replies.Lagged,
    replies.Result,
    replies.Error,
)


@cache
def document() -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "modeld wire protocol",
        "protocol": {"min": limits.PROTOCOL_MIN, "max": limits.PROTOCOL_MAX},
        "framing": {
            "encoding": "UTF-8 JSON, one object per line",
            "max_request": limits.MAX_REQUEST,
            "max_reply": limits.MAX_REPLY,
        },
        "operations": operations(),
        "errors": [{"code": code, "retryable": error.retryable_by_default} for code, error in sorted(BY_CODE.items())],
        "roles": list(vocabulary.ROLE_ORDER),
        "$defs": definitions(),
    }


@cache
def operations() -> dict[str, Any]:
    return {
        name: {
            "request": _ref(row.request),
            "value": _ref(row.value, value=True),
            "kind": row.kind,
            "role": row.role,
            "capability": row.capability,
        }
        for name, row in sorted(OPERATIONS.items())
    }


@cache
def definitions() -> dict[str, Any]:
    """Requests and values may share a name (`ModelList` asks, `ModelList` answers): each kind has its own prefix."""
    merged: dict[str, Any] = {}
    rows = OPERATIONS.values()
    for prefix, types in (
        ("request.", [row.request for row in rows]),
        ("reply.", list(_REPLIES)),
        ("value.", [row.value for row in rows]),
    ):
        _, components = msgspec.json.schema_components(types, ref_template="#/$defs/" + prefix + "{name}")
        merged |= {prefix + name: body for name, body in components.items()}
    for row in rows:
        _require_id(merged["request." + row.request.__name__])
    for body in merged.values():
        if "description" in body:  # Python 3.13 takes the indentation out of docstrings, older ones leave it in
            body["description"] = cleandoc(body["description"])
    del merged["reply.Event"]["properties"]["fields"]  # never on the wire: the receiving side gathers it
    return dict(sorted(merged.items()))


def _require_id(request: dict[str, Any]) -> None:
    """On the wire each request has an id; that the struct may be made without one is a comfort of this library."""
    request["properties"]["id"] = {
        "type": "string",
        "minLength": 1,
        "maxLength": limits.MAX_ID_BYTES,
        "description": f"At most {limits.MAX_ID_BYTES} bytes of UTF-8.",
    }
    request["required"] = ["op", "id", *(field for field in request["required"] if field != "op")]


def _ref(cls: type, *, value: bool = False) -> dict[str, str]:
    return {"$ref": _REF.format(name=("value." if value else "request.") + cls.__name__)}


def text() -> str:
    return json.dumps(document(), indent=2, ensure_ascii=False, sort_keys=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
