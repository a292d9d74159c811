"""Messages to frames, for both roles, and what may stand as an id."""

from __future__ import annotations

from typing import Any

import msgspec

from modelwire import limits, replies
from modelwire.errors import LocalError
from modelwire.requests import Request

_ENCODER = msgspec.json.Encoder()


def encode(message: Request | replies.Reply) -> bytes:
    """One frame. JSON never holds a raw newline, so the newline ends it."""
    try:
        return _ENCODER.encode(message) + b"\n"
    except UnicodeEncodeError:
        if isinstance(message, Request):
            raise LocalError(
                f"{message.__struct_config__.tag}: the request holds text that is not UTF-8",
                hint="Rename a file whose path is not UTF-8.",
            ) from None
        return _ENCODER.encode(_readable(msgspec.to_builtins(message))) + b"\n"


def _readable(value: Any) -> Any:
    """With an escape in place of what is not UTF-8. A path from the disk or another tool's manifest may hold such text,
    and a reply that says so must still leave."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_readable(key): _readable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(each) for each in value]
    return value


def splice(kind: bytes, id_json: bytes, line: bytes) -> bytes:
    """A frame made of a JSON object's bytes that were encoded once for all watchers."""
    return b'{"type":"' + kind + b'","id":' + id_json + b"," + line[1:] + b"\n"


def valid_id(text: object) -> bool:
    if not isinstance(text, str) or not text or len(text) > limits.MAX_ID_BYTES:
        return False
    if text.isascii():
        return True
    try:
        return len(text.encode()) <= limits.MAX_ID_BYTES
    except UnicodeEncodeError:
        return False
