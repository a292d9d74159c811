"""Small documents of foreign servers: how long they may be, and how much they may become in memory.

A megabyte of `[],[],` is three hundred thousand lists, which take thirty times its length. So a document is looked at
before it is decoded, and what is decoded goes into types that keep only what is needed.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

import msgspec

from modeld.download.tuning import MIB

MAX_METADATA: Final = 8 * MIB
"""Lists of files: a page of the hub has a thousand entries of some 400 bytes."""

MAX_SMALL: Final = 1 * MIB
"""Tokens, errors, and all answers with another status than was hoped for."""

MAX_VALUES: Final = 200_000
"""In one document: 20,000 files of a hub, and 20 MB in memory at most."""

T = TypeVar("T")


class BadDocument(ValueError):
    """The document is not JSON of the expected shape, or becomes too much in memory."""


def decoded(body: bytes, kind: type[T]) -> T:
    """Keeps only the fields of `kind`. Raises BadDocument."""
    _refuse_many(body)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise BadDocument(str(fault)) from None


def any_document(body: bytes) -> Any:
    """For a document whose fields depend on each other. Raises BadDocument."""
    _refuse_many(body)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as fault:
        raise BadDocument(str(fault)) from None


def _refuse_many(body: bytes) -> None:
    if len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise BadDocument(f"it has more than {MAX_VALUES} values")
