"""Update commands, and the files that they bring."""

from __future__ import annotations

import json
import uuid
from hashlib import sha256
from typing import Any

import msgspec

from modelwire.knowledge.document import built

WHEN = "2026-01-31T12:00:00Z"

ALWAYS: dict[str, Any] = {"command_id": "1c9e1e2e-6f0f-4a30-8a59-0c6a3c1d2b4f"}
"""For parameters of tests, which all workers must see as the same."""


def content(version: str) -> bytes:
    """Of the file of a version."""
    return b"GGUF\3\0\0\0 the bytes of version " + version.encode()


def digits(version: str) -> str:
    return sha256(content(version)).hexdigest()


def document(version: str, /, **changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"version": version, "sha256": digits(version), "license": "mit", "created_at": WHEN}
    made: dict[str, Any] = json.loads(msgspec.json.encode(built("m-3b", "M 3B", "llm", **known)))
    return made | changes


def command(version: str, changes: dict[str, Any] | None = None, /, **of_document: Any) -> dict[str, Any]:
    return {
        "command_id": str(uuid.uuid4()),
        "manifest": document(version, **of_document),
        "target_nodes": [],
        "priority": 3,
        "auto_load": True,
        "timestamp": WHEN,
    } | (changes or {})
