"""The schema says what the code does: no drift of the committed file, and what it allows is what is decoded."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec
import pytest

import modelwire
from modelwire import limits, schema
from modelwire.decoding import BadRequest, decode_request
from modelwire.errors import BY_CODE
from modelwire.operations import OPERATIONS
from rigs.sample_requests import sample_request

PROTOCOL = os.path.dirname(os.path.dirname(os.path.abspath(modelwire.__file__)))
CHECKED = {"description", "title", "default", "$ref", "anyOf", "enum", "type", "properties", "required", "items"} | {
    "additionalProperties", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
}  # fmt: skip
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "integer": (int,), "number": (int, float),
}  # fmt: skip


def problem(value: Any, rule: dict[str, Any], at: str = "$") -> str | None:
    """The first way in which a value breaks a schema, as far as this schema's keywords go."""
    assert set(rule) <= CHECKED, f"this check does not know {set(rule) - CHECKED}"
    if "$ref" in rule:
        return problem(value, schema.definitions()[rule["$ref"].removeprefix("#/$defs/")], at)
    if "anyOf" in rule:
        found = [problem(value, each, at) for each in rule["anyOf"]]
        return None if None in found else found[0]
    if "enum" in rule and value not in rule["enum"]:
        return f"{at}: not in {rule['enum']}"
    if "type" in rule:
        if not isinstance(value, TYPES[rule["type"]]) or (isinstance(value, bool) and rule["type"] != "boolean"):
            return f"{at}: not of type {rule['type']}"
        return _inner_problem(value, rule, at)
    return None


def _inner_problem(value: Any, rule: dict[str, Any], at: str) -> str | None:
    if isinstance(value, int | float) and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        return f"{at}: out of range"
    if isinstance(value, str) and not rule.get("minLength", 0) <= len(value) <= rule.get("maxLength", len(value)):
        return f"{at}: of another length"
    if isinstance(value, list):
        if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
            return f"{at}: of another length"
        inner = (problem(each, rule.get("items", {}), f"{at}[{n}]") for n, each in enumerate(value))
        return next((found for found in inner if found), None)
    if isinstance(value, dict):
        if missing := set(rule.get("required", ())) - set(value):
            return f"{at}: without {missing}"
        return next((found for each in value if (found := _field_problem(value[each], each, rule, at))), None)
    return None


def _field_problem(value: Any, field: str, rule: dict[str, Any], at: str) -> str | None:
    others = rule.get("additionalProperties", True)
    inner = rule.get("properties", {}).get(field, others)
    if inner is False:
        return f"{at}.{field}: not allowed"
    return problem(value, inner, f"{at}.{field}") if isinstance(inner, dict) else None


def vectors(name: str) -> list[dict[str, Any]]:
    with open(os.path.join(PROTOCOL, "vectors", name), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def request_rule(request: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema.operations()[request["op"]]["request"]
    return found


def references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(references, part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()


def test_the_committed_schema_is_the_one_that_the_code_makes() -> None:
    with open(os.path.join(PROTOCOL, "schema.json"), encoding="utf-8") as file:
        committed = file.read()
    assert committed == schema.text(), "run: python -m modelwire.schema > protocol/schema.json"


def test_it_is_json_and_says_the_limits() -> None:
    document = json.loads(schema.text())
    assert list(document) == list(schema.document())
    assert document["protocol"] == {"min": limits.PROTOCOL_MIN, "max": limits.PROTOCOL_MAX}
    assert document["framing"]["max_request"] == limits.MAX_REQUEST
    assert document["framing"]["max_reply"] == limits.MAX_REPLY


def test_every_error_code_appears() -> None:
    assert {row["code"] for row in schema.document()["errors"]} == set(BY_CODE)


def test_every_reference_leads_somewhere_and_every_definition_is_reachable() -> None:
    document = json.loads(schema.text())
    there = {f"#/$defs/{name}" for name in document["$defs"]}
    wanted = references(document)
    assert wanted <= there
    assert {name for name in there - wanted if not name.startswith("#/$defs/reply.")} == set()


def test_no_text_depends_on_the_version_of_python() -> None:
    for name, body in schema.definitions().items():
        assert "\n  " not in body.get("description", ""), name


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_has_its_request_and_its_value(operation: str) -> None:
    row, described = OPERATIONS[operation], schema.operations()[operation]
    assert described["request"] == {"$ref": f"#/$defs/request.{row.request.__name__}"}
    assert described["value"] == {"$ref": f"#/$defs/value.{row.value.__name__}"}
    assert (described["kind"], described["role"], described["capability"]) == (row.kind, row.role, row.capability)
    request = schema.definitions()[f"request.{row.request.__name__}"]
    assert request["properties"]["op"] == {"enum": [operation]}
    assert set(request["properties"]) == {"op", *row.request.__struct_encode_fields__}
    assert {"op", "id"} <= set(request["required"])
    assert request["additionalProperties"] is False
    value = schema.definitions()[f"value.{row.value.__name__}"]
    assert set(value["properties"]) == set(row.value.__struct_encode_fields__)


@pytest.mark.parametrize("vector", vectors("operations.ndjson"), ids=lambda vector: vector["name"])
def test_the_vectors_fit_the_schema(vector: dict[str, Any]) -> None:
    sent = {each["id"]: each for each in [*vector.get("open", ()), vector["send"]] if each}
    for request in sent.values():
        assert problem(request, request_rule(request)) is None
    for reply in vector["receive"]:
        kind = reply["type"].capitalize()
        if f"reply.{kind}" not in schema.definitions():
            assert vector["extra"]
            continue
        assert problem(reply, {"$ref": f"#/$defs/reply.{kind}"}) is None
        if kind == "Result":
            assert problem(reply["value"], schema.operations()[sent[reply["id"]]["op"]]["value"]) is None


@pytest.mark.parametrize("vector", vectors("errors.ndjson"), ids=lambda vector: vector["name"])
def test_the_schema_refuses_what_the_protocol_refuses(vector: dict[str, Any]) -> None:
    request = vector["send"]
    for reply in vector["receive"]:
        assert problem(reply, {"$ref": f"#/$defs/reply.{reply['type'].capitalize()}"}) is None
    if request["op"] in OPERATIONS and "open" not in vector:
        assert (problem(request, request_rule(request)) is not None) == vector.get("refused", False)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_schema_and_decoder_agree_on_wrong_types(operation: str) -> None:
    """Each field of each operation with a value of each JSON type: both take it or both refuse it."""
    rule = {"$ref": f"#/$defs/request.{OPERATIONS[operation].request.__name__}"}
    whole = sample_request(operation)
    assert problem(whole, rule) is None
    for field in [*OPERATIONS[operation].request.__struct_encode_fields__, "zzz"]:
        for value in (None, True, -1, 0, 7, 2**63, 1.5, "", "text", "cancel", "done", [], [1], ["a"], {}, {"a": 1}):
            changed = whole | {field: value}
            assert decodes(changed) == (problem(changed, rule) is None), changed


def decodes(request: dict[str, Any]) -> bool:
    try:
        decode_request(msgspec.json.encode(request))
    except BadRequest:
        return False
    return True
