"""Every kind of bad line: the class of its error, the field it names, whether it is tied to a request, whether it is
the end of the connection."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire import errors, requests
from modelwire.decoding import BadRequest, decode_request
from modelwire.encoding import valid_id
from modelwire.operations import OPERATIONS


def refused(line: bytes | str) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        decode_request(line.encode() if isinstance(line, str) else line)
    return caught.value


def test_a_good_line_becomes_its_request() -> None:
    line = b'{"op":"model.add","id":"7","path":"/srv/a.gguf","priority":1,"on_disconnect":"continue"}'
    assert decode_request(line) == requests.ModelAdd(id="7", path="/srv/a.gguf", priority=1, on_disconnect="continue")


@pytest.mark.parametrize("line", ['{"id":"1","op":"daemon.status"}\r', ' {"op" : "daemon.status", "id" : "1"} '])
def test_white_space_around_a_request_means_nothing(line: str) -> None:
    assert decode_request(line.encode()) == requests.DaemonStatus(id="1")


# -- lines that are no JSON end the connection


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hello", id="a word"),
        pytest.param(b"\x00", id="NUL"),
        pytest.param(b'{"id":"1","op":"daemon.status"', id="cut off"),
        pytest.param(b'{"id":"1","op":"daemon.status"}{}', id="two objects"),
        pytest.param(b'{"id":"1","op":"daemon.status"}\x00', id="NUL behind"),
        pytest.param(b'{"id":"1","op":"daemon.status",}', id="trailing comma"),
        pytest.param(b'{"id":"1","op":"model.show","name":"a\x00"}', id="NUL in a string"),
        pytest.param(b'{"id":"1","op":"model.show","name":"a\tb"}', id="tab in a string"),
        pytest.param(b'{"id":"1","op":"model.show","name":"\\x41"}', id="unknown escape"),
        pytest.param(b'{"id":"1","op":"daemon.drain","deadline_s":NaN}', id="NaN"),
        pytest.param(b'{"id":"1","op":"daemon.drain","deadline_s":Infinity}', id="Infinity"),
        pytest.param(b'{"id":"1","op":"daemon.drain","deadline_s":-Infinity}', id="-Infinity"),
        pytest.param(b'{"id":"1","op":"daemon.drain","deadline_s":.5}', id="no leading digit"),
        pytest.param(b'{"id":"1","op":"job.list","limit":010}', id="leading zero"),
        pytest.param(b'\xef\xbb\xbf{"id":"1","op":"daemon.status"}', id="byte order mark"),
        pytest.param(b'{"id":"1","op":"model.show","name":"\xff"}', id="no UTF-8 in a value"),
        pytest.param(b'{"id":"1","op":"daemon.status","\xff":1}', id="no UTF-8 in a key"),
        pytest.param(b'{"id":"\xc3","op":"daemon.status"}', id="half a character"),
        pytest.param(b'{"id":"1","op":"model.show","name":"\xed\xa0\x80"}', id="an encoded surrogate"),
        pytest.param(b'{"id":"1","op":"model.show","name":"\xc0\x80"}', id="an overlong NUL"),
        pytest.param('{"id":"1"}'.encode("utf-16"), id="UTF-16"),
    ],
)
def test_what_is_no_json_in_utf8_is_fatal_and_tied_to_no_request(line: bytes) -> None:
    bad = refused(line)
    assert isinstance(bad.fault, errors.InvalidRequest)
    assert bad.fault.message.startswith("the line is not JSON in UTF-8: ")
    assert bad.fault.hint is not None
    assert bad.fatal
    assert bad.id is None


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"id":"1","op":"daemon.status","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"id":"1","op":"daemon.status"}',
        b'{"id":"1","op":"model.show","name":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
    ],
    ids=["open arrays", "open objects", "whole arrays", "in a field", "before the operation", "in a known field"],
)
def test_deep_nesting_is_refused_without_reaching_the_end_of_the_stack(line: bytes) -> None:
    bad = refused(line)
    assert isinstance(bad.fault, errors.InvalidRequest)
    assert bad.fatal or bad.id == "1"
    assert len(bad.fault.message) < 500


# -- JSON that is no request lives on


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("null", "null"),
        ("true", "a boolean"),
        ("5", "a number"),
        ("-0.5e3", "a number"),
        ("9" * 5000, "a number"),
        ('"text"', "a string"),
        ('[{"id":"1","op":"daemon.status"}]', "an array"),
    ],
    ids=["null", "true", "integer", "float", "giant", "string", "array"],
)
def test_json_that_is_no_object_is_named(line: str, kind: str) -> None:
    bad = refused(line)
    assert bad.fault.message == f"$: a request is a JSON object, not {kind}"
    assert bad.fault.hint
    assert isinstance(bad.fault, errors.InvalidRequest)
    assert not bad.fatal
    assert bad.id is None


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("name", 5, "$.name: Expected `str`, got `int`"),
        ("name", None, "$.name: Expected `str`, got `null`"),
        ("name", ["a"], "$.name: Expected `str`, got `array`"),
        ("name", {"a": 1}, "$.name: Expected `str`, got `object`"),
    ],
)
def test_a_wrong_type_is_named_by_its_path(field: str, value: Any, path: str) -> None:
    bad = refused(json.dumps({"id": "1", "op": "model.show", field: value}))
    assert bad.fault.message == path
    assert isinstance(bad.fault, errors.InvalidRequest)
    assert bad.fault.hint == "See daemon.describe for what model.show takes."
    assert bad.id == "1"
    assert not bad.fatal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"model.add","path":"/a","priority":"3"', "$.priority: Expected `int`, got `str`"),
        ('"model.add","path":"/a","priority":3.5', "$.priority: Expected `int`, got `float`"),
        ('"model.add","path":"/a","priority":true', "$.priority: Expected `int`, got `bool`"),
        ('"model.add","path":"/a","replace":1', "$.replace: Expected `bool`, got `int`"),
        ('"model.add","path":"/a","on_disconnect":"never"', "$.on_disconnect: Invalid enum value 'never'"),
        ('"hello","protocol":1,"required":["jobs",5]', "$.required[1]: Expected `str`, got `int`"),
        ('"hello","protocol":1,"required":"jobs"', "$.required: Expected `array`, got `str`"),
        ('"model.list","limit":-1', "$.limit: Expected `int` >= 0"),
        ('"job.list","limit":-1', "$.limit: Expected `int` >= 0"),
        ('"events.subscribe","since":-1', "$.since: Expected `int` >= 0"),
        ('"events.subscribe","last":9223372036854775808', "$.last: Expected `int` <= 9223372036854775807"),
        ('"daemon.drain","deadline_s":1e400', "$.deadline_s: Number out of range"),
        ('"daemon.drain","deadline_s":' + "9" * 400, "$.deadline_s: Number out of range"),
        ('"job.list","limit":' + "9" * 5000, "$.limit: Integer value out of range"),
        ('"job.list","limit":-' + "9" * 1_000_000, "$.limit: Integer value out of range"),
        ('"model.show"', "$.name: model.show needs this field"),
        ('"job.prioritize","job":"x"', "$.priority: job.prioritize needs this field"),
        ('"model.show","name":"\\ud800"', "$.name: half of a surrogate pair is no text"),
        ('"model.show","name":"\\udcff and more"', "$.name: half of a surrogate pair is no text"),
        ('"hello","protocol":1,"optional":["\\ud83d"]', "$.optional: half of a surrogate pair is no text"),
    ],
    ids=lambda text: text[:60],
)
def test_bad_content_names_the_field_and_the_connection_lives(text: str, message: str) -> None:
    bad = refused(f'{{"id":"1","op":{text}}}')
    assert bad.fault.message == message
    assert isinstance(bad.fault, errors.InvalidRequest)
    assert bad.fault.hint
    assert bad.id == "1"
    assert not bad.fatal


def test_a_whole_surrogate_pair_is_text() -> None:
    request = decode_request(b'{"id":"1","op":"model.show","name":"\\ud83e\\udd99"}')
    assert request == requests.ModelShow(id="1", name="\N{LLAMA}")


# -- unknown fields and operations


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_unknown_field_is_refused_by_every_operation(operation: str) -> None:
    bad = refused(json.dumps({"id": "1", "op": operation, "zzz": 1}))
    assert isinstance(bad.fault, errors.InvalidRequest)
    assert bad.fault.message == f"$.zzz: {operation} has no such field"
    assert bad.fault.hint == "See daemon.describe for its fields."
    assert bad.id == "1"
    assert not bad.fatal


def test_an_unknown_field_that_is_close_to_a_real_one_is_put_right() -> None:
    bad = refused('{"id":"1","op":"model.add","path":"/a","prioritty":1}')
    assert bad.fault.hint == "Did you mean priority?"


@pytest.mark.parametrize(
    "field", ["` - at `" * 10_000, "x" * 500_000, "a`b - at `$.c`", "\n", "\x1b[2J", "", "é", "\u2028"]
)
def test_a_hostile_field_name_is_echoed_short_and_without_control_characters(field: str) -> None:
    bad = refused(json.dumps({"id": "1", "op": "daemon.status", field: 1}))
    assert bad.fault.message.endswith(": daemon.status has no such field")
    assert len(bad.fault.message) < 300
    assert bad.fault.message.isprintable()
    assert bad.id == "1"


def test_an_unknown_operation_has_a_class_of_its_own() -> None:
    bad = refused('{"id":"1","op":"make.coffee"}')
    assert isinstance(bad.fault, errors.UnknownOperation)
    assert bad.fault.message == "this daemon has no operation 'make.coffee'"
    assert bad.fault.hint == "See daemon.describe for all operations."
    assert bad.id == "1"
    assert not bad.fatal


@pytest.mark.parametrize(("wrong", "right"), [("model.lst", "model.list"), ("Daemon.status", "daemon.status")])
def test_an_unknown_operation_that_is_close_to_a_real_one_is_put_right(wrong: str, right: str) -> None:
    assert refused(json.dumps({"id": "1", "op": wrong})).fault.hint == f"Did you mean {right}?"


@pytest.mark.parametrize("operation", ["x" * 500_000, "\x1b[2J", "\n", "\\ud800", ""])
def test_a_hostile_operation_is_echoed_short_and_without_control_characters(operation: str) -> None:
    bad = refused('{"id":"1","op":"' + operation.replace("\x1b", "\\u001b").replace("\n", "\\n") + '"}')
    assert isinstance(bad.fault, errors.UnknownOperation)
    assert len(bad.fault.message) < 300
    assert bad.fault.message.isprintable()


@pytest.mark.parametrize("fields", ["", ',"op":null', ',"op":5', ',"op":["model.list"]', ',"name":"a"'])
def test_a_request_without_an_operation_is_tied_to_its_id(fields: str) -> None:
    bad = refused('{"id":"1"' + fields + "}")
    assert isinstance(bad.fault, errors.InvalidRequest)
    assert bad.fault.message == "$.op: a request names its operation, a string"
    assert bad.id == "1"
    assert not bad.fatal


# -- ids


@pytest.mark.parametrize("good", ["1", "x" * 64, "é" * 32, "\N{LLAMA}" * 16, " ", "\x00"])
def test_an_id_has_1_to_64_bytes(good: str) -> None:
    assert valid_id(good)
    request = decode_request(
        json.dumps({"id": good, "op": "daemon.status"}, ensure_ascii=False).replace("\x00", "\\u0000").encode()
    )
    assert request.id == good


@pytest.mark.parametrize(
    "bad_id", ["", "x" * 65, "é" * 32 + "x", "\N{LLAMA}" * 17, "\ud800", "x" * 500_000, 1, 1.5, None, True, [], {}]
)
@pytest.mark.parametrize("rest", [{"op": "daemon.status"}, {"op": "nope"}, {"op": "daemon.status", "zzz": 1}, {}])
def test_a_bad_id_ties_the_error_to_no_request(bad_id: object, rest: dict[str, object]) -> None:
    assert not valid_id(bad_id)
    bad = refused(json.dumps({"id": bad_id, **rest}))
    assert isinstance(bad.fault, errors.InvalidRequest)
    assert bad.fault.message == "$.id: a request needs an id, a string of 1 to 64 bytes"
    assert bad.id is None
    assert not bad.fatal


def test_a_request_without_an_id_is_refused() -> None:
    assert refused('{"op":"daemon.status"}').fault.message.startswith("$.id: ")


def test_of_a_key_that_occurs_twice_the_last_counts() -> None:
    assert decode_request(b'{"id":"1","id":"2","op":"daemon.status"}') == requests.DaemonStatus(id="2")
    assert refused('{"id":"1","id":"2","op":"nope"}').id == "2"
    twice = b'{"id":"1","op":"model.show","name":"a","name":"b"}'
    assert decode_request(twice) == requests.ModelShow(id="1", name="b")


def test_two_operations_in_one_request_are_refused() -> None:
    bad = refused('{"op":"daemon.status","op":"daemon.drain","id":"1"}')
    assert bad.fault.message.startswith("$.op: ")
    assert bad.id == "1"


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.sampled_from(["id", "op", "name", "job", "x"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
        max_leaves=12,
    )
)
def test_no_json_value_is_fatal(value: object) -> None:
    bad = refused(json.dumps(value))
    assert not bad.fatal
    assert bad.fault.message.startswith("$") or isinstance(bad.fault, errors.UnknownOperation)
