"""The table of operations is whole, and names are what the wire says."""

from __future__ import annotations

import msgspec
import pytest

from modelwire import operations, requests, values
from modelwire.operations import BY_REQUEST, CAPABILITIES, OPERATIONS, Operation
from modelwire.vocabulary import ROLE_ORDER, allows, clamp_priority
from rigs.sample_requests import sample_request

ROWS = pytest.mark.parametrize("row", OPERATIONS.values(), ids=lambda row: row.name)


def descendants(cls: type[requests.Request]) -> set[type[requests.Request]]:
    found: set[type[requests.Request]] = set()
    for child in cls.__subclasses__():
        found |= {child} | descendants(child)
    return found


def test_each_request_type_is_in_the_table_once() -> None:
    own = {cls for cls in descendants(requests.Request) if cls.__module__.startswith(requests.__name__)}
    assert set(BY_REQUEST) == own - {requests.Write}
    assert len(BY_REQUEST) == len(OPERATIONS)


@ROWS
def test_a_row_is_found_by_the_name_that_its_request_has_on_the_wire(row: Operation) -> None:
    assert OPERATIONS[row.name] is row
    assert BY_REQUEST[row.request] is row
    assert row.request.__struct_config__.tag == row.name
    assert row.request.__struct_config__.tag_field == "op"


@ROWS
def test_a_request_refuses_and_a_value_ignores_what_it_does_not_know(row: Operation) -> None:
    assert row.request.__struct_config__.forbid_unknown_fields
    assert not row.value.__struct_config__.forbid_unknown_fields
    assert issubclass(row.value, values.Value)
    assert row.request.__struct_config__.frozen
    assert row.value.__struct_config__.frozen


@ROWS
def test_what_is_admitted_takes_a_priority_and_nothing_else_does(row: Operation) -> None:
    assert issubclass(row.request, requests.Write) == (row.kind == "write")


@ROWS
def test_rights_fit_the_kind(row: Operation) -> None:
    assert row.role in ROLE_ORDER
    if row.kind == "write":
        assert allows(row.role, "write")
    if row.kind == "read":
        assert row.role == "read"


def test_the_core_is_always_there() -> None:
    assert "core" in CAPABILITIES
    assert list(CAPABILITIES) == sorted(set(CAPABILITIES))
    assert {row.capability for row in OPERATIONS.values()} == set(CAPABILITIES)


@ROWS
def test_the_union_decodes_each_operation(row: Operation) -> None:
    line = msgspec.json.encode(sample_request(row.name))
    assert type(msgspec.json.decode(line, type=operations.request_union())) is row.request


def test_roles_order() -> None:
    assert allows("admin", "write")
    assert allows("write", "write")
    assert allows("write", "read")
    assert not allows("read", "write")
    assert not allows("write", "admin")
    assert not allows("nobody", "read")


@pytest.mark.parametrize(("asked", "given"), [(-(10**30), 1), (0, 1), (1, 1), (3, 3), (5, 5), (6, 5), (10**30, 5)])
def test_a_priority_is_clamped(asked: int, given: int) -> None:
    assert clamp_priority(asked) == given
