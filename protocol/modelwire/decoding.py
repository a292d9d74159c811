"""One line to one typed request, or to the typed error that says what is wrong with it.

The good line is decoded once, straight into its struct. Only a line that fails is read again, to find out whether it
is JSON at all (fatal: there is no resynchronising), which request it meant to be, and which field is at fault.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

import msgspec

from modelwire import limits
from modelwire.errors import InvalidRequest, UnknownOperation, WireError
from modelwire.operations import OPERATIONS, request_union
from modelwire.requests import Request

_DECODER: msgspec.json.Decoder[Request] = msgspec.json.Decoder(request_union())
_PLAIN: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_UNKNOWN_FIELD = re.compile(r"unknown field `(?P<field>.*?)`(?: - at `(?P<path>.*?)`)?$", re.DOTALL)
_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>.*?)`)?$", re.DOTALL)
_ECHO = 100
"""Characters of a peer's own text that an error repeats."""


class BadRequest(Exception):
    """A line that is no request. `id` is the request's own when it could be read; `fatal` ends the connection."""

    def __init__(self, fault: WireError, *, id: str | None = None, fatal: bool = False) -> None:  # noqa: A002
        super().__init__(fault.message)
        self.fault = fault
        self.id = id
        self.fatal = fatal


def decode_request(line: bytes) -> Request:
    try:
        request = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _explain(line, error) from None
    if not valid_id(request.id):
        raise BadRequest(_bad_id())
    return request


def valid_id(text: object) -> bool:
    if not isinstance(text, str) or not text or len(text) > limits.MAX_ID_BYTES:
        return False
    return len(text.encode("utf-8", "surrogatepass")) <= limits.MAX_ID_BYTES


def _bad_id() -> InvalidRequest:
    return InvalidRequest(
        f"$.id: a request needs an id, a string of 1 to {limits.MAX_ID_BYTES} bytes",
        hint='give each request its own id, for example "id":"1"',
    )


def _explain(line: bytes, error: Exception) -> BadRequest:
    try:
        plain = _PLAIN.decode(line)
    except RecursionError:
        return BadRequest(InvalidRequest("the line is nested too deeply to be a request"), fatal=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as fault:
        return BadRequest(
            InvalidRequest(
                f"the line is not JSON in UTF-8: {str(fault)[:_ECHO]}",
                hint="send one JSON object per line; the connection is closed, open a new one",
            ),
            fatal=True,
        )
    if not isinstance(plain, dict):
        return BadRequest(InvalidRequest(f"$: a request is a JSON object, not {_kind(plain)}"))
    found = plain.get("id")
    if not valid_id(found):
        return BadRequest(_bad_id())
    return BadRequest(_field_fault(plain, str(error)), id=found)


def _field_fault(plain: dict[str, Any], text: str) -> WireError:
    operation = plain.get("op")
    if not isinstance(operation, str):
        return InvalidRequest("$.op: a request names its operation, a string", hint="see daemon.describe")
    if operation not in OPERATIONS:
        close = get_close_matches(operation[:_ECHO], OPERATIONS, n=1)
        return UnknownOperation(
            f"this daemon has no operation {operation[:_ECHO]!r}",
            hint=f"did you mean {close[0]}?" if close else "daemon.describe lists all operations",
        )
    if unknown := _UNKNOWN_FIELD.search(text):
        path = f"{unknown['path'] or '$'}.{unknown['field'][:_ECHO]}"
        return InvalidRequest(f"{path}: {operation} has no such field", hint="daemon.describe lists its fields")
    at = _AT.match(text)
    what, path = (at["what"], at["path"] or "$") if at else (text, "$")
    return InvalidRequest(f"{path}: {what}"[: 4 * _ECHO], hint=f"daemon.describe tells what {operation} takes")


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
