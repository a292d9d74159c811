"""The vectors are what this code speaks: both roles go through all of them."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec
import pytest

import modelwire
from modelwire import requests
from modelwire.client import ClientConnection
from modelwire.connection import ServerConnection
from modelwire.decoding import BadRequest
from modelwire.encoding import encode
from modelwire.errors import BY_CODE, Internal
from modelwire.operations import BY_REQUEST, OPERATIONS
from modelwire.replies import Error, Event, Hello, RawResult, Received, Reply

HERE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(modelwire.__file__))), "vectors")
KEYS = {"name", "open", "send", "send_hex", "repeat", "receive", "refused", "closes", "extra"}
KINDS = {str(cls.__struct_config__.tag) for cls in Reply.__subclasses__()}


def load(name: str) -> list[dict[str, Any]]:
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


GOOD = load("operations.ndjson")
ERRORS = load("errors.ndjson")
MALFORMED = load("malformed.ndjson")
ALL = [*GOOD, *ERRORS, *MALFORMED]


def each(*vectors: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])


def line_of(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode() + b"\n"


def line_sent(vector: dict[str, Any]) -> bytes:
    if "send_hex" in vector:
        return bytes.fromhex(vector["send_hex"]) + b"\n"
    send: str | dict[str, Any] = vector["send"]
    if isinstance(send, str):
        return send.encode() * int(vector.get("repeat", 1)) + b"\n"
    return line_of(send)


def server_before(vector: dict[str, Any]) -> ServerConnection:
    server = ServerConnection()
    for request in vector.get("open", ()):
        server.feed(line_of(request))
        assert server.next_request() is not None
    return server


def conversation(vector: dict[str, Any]) -> tuple[ClientConnection, list[Received]]:
    """A client that has sent the vector's requests, and what it makes of the replies."""
    client = ClientConnection()
    for request in [*vector.get("open", ()), vector["send"]]:
        if request is not None and request["id"] not in client.open:
            row = OPERATIONS[request["op"]]
            _, frame = client.request(msgspec.json.decode(line_of(request), type=row.request))
            assert msgspec.json.decode(frame) == request
    client.feed(b"".join(map(line_of, vector["receive"])))
    received = []
    while (reply := client.next_reply()) is not None:
        received.append(reply)
    return client, received


def again(reply: Received, operation: str | None) -> Any:
    """The reply as this code would send it."""
    if isinstance(reply, RawResult):
        assert operation is not None
        value = msgspec.json.decode(reply.value, type=OPERATIONS[operation].value)
        return {"type": "result", "id": reply.id, "value": msgspec.json.decode(msgspec.json.encode(value))}
    if isinstance(reply, Event):
        return {"type": "event", "id": reply.id, **reply.fields}
    return msgspec.json.decode(encode(reply))


def without_added_defaults(sent: Any, expected: Any) -> Any:
    """What was sent, less the fields that the vector leaves out and that say nothing."""
    if isinstance(sent, dict) and isinstance(expected, dict):
        shown = {key: value for key, value in sent.items() if key in expected or value not in (None, [], {}, 0, False)}
        return {key: without_added_defaults(value, expected.get(key)) for key, value in shown.items()}
    if isinstance(sent, list) and isinstance(expected, list) and len(sent) == len(expected):
        return [without_added_defaults(*pair) for pair in zip(sent, expected, strict=True)]
    return sent


# -- all is there


def test_every_operation_has_a_vector_with_its_value() -> None:
    shown = set()
    for vector in GOOD:
        sent = {request["id"]: request["op"] for request in [*vector.get("open", ()), vector["send"]] if request}
        shown |= {sent[reply["id"]] for reply in vector["receive"] if reply["type"] == "result"}
    assert shown == set(OPERATIONS)


def test_every_code_has_a_vector() -> None:
    shown = {reply["code"] for vector in [*ERRORS, *MALFORMED] if "extra" not in vector for reply in vector["receive"]
             if reply["type"] == "error"}  # fmt: skip
    assert shown == set(BY_CODE)


def test_every_kind_of_reply_has_a_vector() -> None:
    assert {reply["type"] for vector in GOOD if "extra" not in vector for reply in vector["receive"]} == KINDS


def test_every_field_of_every_request_has_a_vector() -> None:
    shown: dict[str, set[str]] = {}
    for vector in GOOD:
        if vector["send"] is not None:
            shown.setdefault(vector["send"]["op"], set()).update(vector["send"])
    for name, row in OPERATIONS.items():
        assert shown[name] == {"op", *row.request.__struct_encode_fields__}, name


def test_names_are_unique_and_keys_are_those_of_the_readme() -> None:
    names = [vector["name"] for vector in ALL]
    assert len(set(names)) == len(names)
    assert {key for vector in ALL for key in vector} == KEYS
    with open(os.path.join(HERE, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    assert all(f"| `{key}` |" in readme for key in KEYS)


# -- the server


@each(*(vector for vector in [*GOOD, *ERRORS] if not vector.get("refused") and vector["send"]))
def test_the_server_takes_the_request(vector: dict[str, Any]) -> None:
    server = server_before(vector)
    server.feed(line_sent(vector))
    request = server.next_request()
    assert request is not None
    assert BY_REQUEST[type(request)].name == vector["send"]["op"]
    assert msgspec.json.decode(encode(request)) == vector["send"]


@each(*(vector for vector in GOOD if not vector.get("extra")))
def test_the_server_may_send_the_replies(vector: dict[str, Any]) -> None:
    server = server_before(vector)
    if vector["send"] is not None:
        server.feed(line_sent(vector))
        server.next_request()
    types = {cls.__struct_config__.tag: cls for cls in Reply.__subclasses__() if cls is not RawResult}
    for reply in vector["receive"]:
        server.reply(msgspec.json.decode(line_of(reply), type=types[reply["type"]]))
    ended = {reply["id"] for reply in vector["receive"] if reply["type"] in ("result", "error")}
    assert not ended & set(server.open)


@each(*(vector for vector in ERRORS if vector.get("refused")), *MALFORMED)
def test_the_server_refuses_the_line_in_these_words(vector: dict[str, Any]) -> None:
    server = server_before(vector)
    server.feed(line_sent(vector))
    with pytest.raises(BadRequest) as caught:
        server.next_request()
    bad = caught.value
    assert bad.fatal == vector.get("closes", False)
    (expected,) = vector["receive"]
    sent = msgspec.json.decode(encode(Error.of(bad.id, bad.fault)))
    if bad.fault.message.startswith("the line is not JSON in UTF-8: "):  # the rest of it is the parser's
        sent["message"] = sent["message"].partition(": ")[0]
    if vector in MALFORMED and "hint" not in expected:
        sent.pop("hint", None)
    assert sent == expected
    assert list(server.open) == [request["id"] for request in vector.get("open", ())]


# -- the client


@each(*GOOD)
def test_the_client_reads_the_replies_and_nothing_is_lost(vector: dict[str, Any]) -> None:
    client, received = conversation(vector)
    operations = {request["id"]: request["op"] for request in [*vector.get("open", ()), vector["send"]] if request}
    expected = [reply for reply in vector["receive"] if reply["type"] in KINDS]
    sent_again = [again(reply, operations.get(reply.id or "")) for reply in received]
    if vector.get("extra"):
        sent_again, expected = ([(reply["type"], reply["id"]) for reply in both] for both in (sent_again, expected))
    assert without_added_defaults(sent_again, expected) == expected
    assert not client.open
    assert isinstance(client.hello, Hello) == (vector["send"] is None)


@each(*(vector for vector in ERRORS if not vector.get("refused")))
def test_the_client_raises_the_class_of_the_code(vector: dict[str, Any]) -> None:
    client, received = conversation(vector)
    last, expected = received[-1], vector["receive"][-1]
    assert isinstance(last, Error)
    fault = last.to_exception()
    assert type(fault) is BY_CODE.get(expected["code"], Internal)
    assert expected["message"] in fault.message
    assert fault.hint == expected.get("hint")
    assert fault.retryable == expected["retryable"]
    assert fault.retry_after_ms == expected.get("retry_after_ms")
    assert fault.details == expected.get("details", {})
    assert not client.open


@each(*(vector for vector in [*ERRORS, *MALFORMED] if "extra" not in vector))
def test_retryable_is_what_the_class_says(vector: dict[str, Any]) -> None:
    for reply in vector["receive"]:
        if reply["type"] == "error":
            assert reply["retryable"] == BY_CODE[reply["code"]].retryable_by_default


def test_no_counter_ever_decreases() -> None:
    for vector in GOOD:
        before: dict[str, int] = {}
        for reply in vector["receive"]:
            for counter in ("bytes_done", "verified_bytes", "committed_bytes", "reused_bytes", "files_done"):
                if reply["type"] == "progress":
                    assert reply[counter] >= before.get(counter, 0), vector["name"]
                    before[counter] = reply[counter]


def test_a_default_that_is_written_out_means_the_same() -> None:
    for vector in GOOD:
        if vector["send"] is None:
            continue
        row = OPERATIONS[vector["send"]["op"]]
        full = {"op": row.name}
        request = msgspec.json.decode(line_sent(vector), type=row.request)
        for field, name in zip(row.request.__struct_fields__, row.request.__struct_encode_fields__, strict=True):
            full[name] = getattr(request, field)
        server = server_before(vector)
        server.feed(msgspec.json.encode(full) + b"\n")
        assert server.next_request() == request
        assert isinstance(request, requests.Request)
