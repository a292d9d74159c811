"""What is said about a text that is no reference, without repeating what may be secret in it."""

from __future__ import annotations

import re
from typing import Final

from modeld.observe.redact import redact_text
from modelwire.errors import InvalidRequest

ACCEPTED: Final = (
    ("/path/model.gguf, ./model.gguf, file:model.gguf", "a file or directory of this machine"),
    ("hf:org/repo/path/in/repo[@revision]", "one file of a Hugging Face repository"),
    ("hf:org/repo[@revision]", "all its files"),
    ("hf:org/repo:Q4_K_M[@revision]", "the files of one quantisation"),
    ("https://huggingface.co/…", "the same, pasted from a browser"),
    ("https://host/path/model.gguf", "one file"),
    ("ollama:name[:tag], ollama:namespace/name[:tag]", "a model of the Ollama registry"),
    ("oci://host/repo[:tag], oci://host/repo@sha256:…", "a model of an OCI registry"),
    ("s3://bucket/key, s3://bucket/prefix/", "one object, or all below a prefix"),
    ("name[:tag]", "a model that is already in the store"),
)

_HINT: Final = "Write one of: " + "; ".join(form for form, _ in ACCEPTED) + "."

_WITH_AUTHORITY: Final = frozenset({"https", "http", "oci", "s3"})


def bad_reference(text: str, reason: str, *, rule: str, hint: str | None = None) -> InvalidRequest:
    """`reason` completes "… is no reference: "; it must not quote what it has not checked."""
    return InvalidRequest(
        f"{shown(text)} is not a reference to a model: {reason}",
        hint=_HINT if hint is None else f"{hint} {_HINT}",
        details={"rule": rule, "accepted": [form for form, _ in ACCEPTED]},
    )


def shown(text: str) -> str:
    """The text up to its query, without user, password and whatever has the shape of a token."""
    text = re.split(r"[?#]", text, maxsplit=1)[0]
    scheme, colon, rest = text.partition(":")
    before, pin, digest = rest.partition("@sha256:")
    if "@" in before and (before.startswith("/") or scheme.lower() in _WITH_AUTHORITY):
        # Up to the last one: a password that was not encoded may hold `@` and `/` itself.
        text = f"{scheme}{colon}//…@{before.rpartition('@')[2]}{pin}{digest}"
    text = redact_text(text)
    return ascii(text) if len(text) <= 120 else ascii(text[:120]) + "…"
