"""JSON and base64 that have one reading only: what two programs can read differently is refused."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from modeld.signatures.faults import Unverifiable

MAX_BUNDLE: Final = 16 << 20
"""Bytes. 4,000 files, the most of a model in the store, take 2 MiB; 16 have room for 60,000 shards."""

_MAX_PARTS: Final = 600_000
"""Of brackets and commas: a resource has four at least, and so many take 80 MB for a moment."""

_MAX_REASON: Final = 200
"""Characters of what a decoder reports, which can quote the document."""

_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")

_Kind = TypeVar("_Kind")


def parse(data: bytes, what: str) -> object:
    """Raises Unverifiable, as everything here does."""
    if len(data) > MAX_BUNDLE:
        raise Unverifiable("size", f"{what} has {len(data)} bytes; {MAX_BUNDLE} are read at most")
    if data.count(b"{") + data.count(b"[") + data.count(b",") > _MAX_PARTS:
        raise Unverifiable("size", f"{what} has more than {_MAX_PARTS} parts")
    try:
        document: object = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_refuse)
        if _HALF.search(data):
            # Half a character has no bytes: encoding fails.
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except (ValueError, RecursionError) as fault:
        raise Unverifiable("json", f"{what} is no JSON with one meaning: {str(fault)[:_MAX_REASON]}") from None


def shaped(document: object, kind: type[_Kind], what: str) -> _Kind:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as fault:
        raise Unverifiable("structure", f"{what} is not built as it must be: {str(fault)[:_MAX_REASON]}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def from_base64(text: str, what: str) -> bytes:
    """What is encoded, if it is encoded in the one standard way: without line ends, with its padding."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = None
    if not data or base64.b64encode(data).decode() != text:
        raise Unverifiable("base64", f"{what} is not written in base64 as the standard has it, or is empty")
    return data
