"""One line to one typed request, or to the typed error that reports what is wrong with it.

The good line is decoded once, straight into its struct. Only a line that fails is read again, to find out whether it
is JSON at all (fatal: there is no resynchronising), which request it meant to be, and which field is at fault. Of a key
that occurs twice the last counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import msgspec

from modelwire import limits
from modelwire.encoding import valid_id
from modelwire.errors import InvalidRequest, UnknownOperation, WireError
from modelwire.operations import OPERATIONS, request_union
from modelwire.requests import Request

_DECODER: msgspec.json.Decoder[Request] = msgspec.json.Decoder(request_union())
_PLAIN: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_MISSING = "Object missing required field `"
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


def _bad_id() -> InvalidRequest:
    return InvalidRequest(
        f"$.id: a request needs an id, a string of 1 to {limits.MAX_ID_BYTES} bytes",
        hint='Give each request its own id, for example "id":"1".',
    )


def _explain(line: bytes, error: Exception) -> BadRequest:
    try:
        if isinstance(error, RecursionError):
            raise error
        plain = _read_again(line)
    except RecursionError:
        return BadRequest(
            InvalidRequest(
                "the line is nested too deeply to be a request",
                hint="No field of a request nests. The connection is closed: open a new one.",
            ),
            fatal=True,
        )
    except (msgspec.MsgspecError, ValueError) as fault:
        return BadRequest(
            InvalidRequest(
                f"the line is not JSON in UTF-8: {str(fault)[:_ECHO]}",
                hint="Send one JSON object per line. The connection is closed: open a new one.",
            ),
            fatal=True,
        )
    if not isinstance(plain, dict):
        return BadRequest(
            InvalidRequest(f"$: a request is a JSON object, not {_kind(plain)}", hint="Send one JSON object per line.")
        )
    found = plain.get("id")
    if not valid_id(found):
        return BadRequest(_bad_id())
    return BadRequest(_field_fault(plain, error), id=found)


def _read_again(line: bytes) -> Any:
    """The line without its types. JSON also allows what msgspec does not hold: a number of any size, which the standard
    library need not build to read past it, and an escaped half of a surrogate pair."""
    try:
        return _PLAIN.decode(line)
    except msgspec.MsgspecError as fault:
        try:
            return json.loads(line.decode(), parse_int=len, parse_float=len, parse_constant=_no_json)
        except ValueError:
            raise fault from None


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _field_fault(plain: dict[str, Any], error: Exception) -> WireError:
    operation = plain.get("op")
    if not isinstance(operation, str):
        return InvalidRequest("$.op: a request names its operation, a string", hint="See daemon.describe.")
    if operation not in OPERATIONS:
        return UnknownOperation(
            f"this daemon has no operation {operation[:_ECHO]!r}",
            hint=_did_you_mean(operation, OPERATIONS) or "See daemon.describe for all operations.",
        )
    known = ("op", *OPERATIONS[operation].request.__struct_encode_fields__)
    for field in plain:
        if field not in known:
            return InvalidRequest(
                f"$.{_printable(field)}: {operation} has no such field",
                hint=_did_you_mean(field, known) or "See daemon.describe for its fields.",
            )
    if not isinstance(error, msgspec.ValidationError):
        return _no_text(plain)
    text = str(error)
    if text.startswith(_MISSING):
        field = text.removeprefix(_MISSING).partition("`")[0]
        return InvalidRequest(f"$.{field}: {operation} needs this field", hint="See daemon.describe for its fields.")
    what, _, path = text.rpartition(" - at `")
    return InvalidRequest(
        f"{path.removesuffix('`') or '$'}: {what or text}"[: 4 * _ECHO],
        hint=f"See daemon.describe for what {operation} takes.",
    )


def _did_you_mean(word: str, words: Iterable[str]) -> str | None:
    close = get_close_matches(word[:_ECHO], words, n=1)
    return f"Did you mean {close[0]}?" if close else None


def _no_text(plain: dict[str, Any]) -> InvalidRequest:
    """Only an escaped half of a surrogate pair is JSON to the standard library and not to msgspec."""
    path = next((field for field, value in plain.items() if _has_half_pair(value)), None)
    return InvalidRequest(
        f"{'$' if path is None else f'$.{path}'}: half of a surrogate pair is no text",
        hint="Send texts in UTF-8, and rename a file whose path is not.",
    )


def _has_half_pair(value: object) -> bool:
    texts = value if isinstance(value, list) else [value]
    try:
        for text in texts:
            if isinstance(text, str):
                text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _printable(text: str) -> str:
    """A peer's own key, cut, with its control characters escaped: it ends up in logs and on terminals."""
    short = text[:_ECHO]
    return short if short.isprintable() else repr(short)


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
