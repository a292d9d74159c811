"""The registry has what the wire has: each operation once, with the types that clients see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modeld.jobs.job import Kind
from modeld.operations import registry
from modeld.operations.operation import QuickOperation, SlowOperation
from modeld.operations.registry import Operations
from modelwire.operations import BY_REQUEST, OPERATIONS
from modelwire.values import Done
from rigs.operations_rig import operations_rig


async def test_each_operation_of_the_wire_is_answered(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        answered = at.operations.quick.keys() | at.operations.slow.keys()
        assert answered == {row.request for row in OPERATIONS.values() if row.kind != "connection"}
        assert at.operations.lookups <= at.operations.slow.keys()


async def test_an_operation_that_is_missing_or_there_twice_or_of_other_types_is_no_daemon(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        made = [each(at.services) for each in registry._ALL]
        Operations(made)
        with pytest.raises(RuntimeError, match=made[0].request.__name__):
            Operations(made[1:])
        with pytest.raises(RuntimeError, match=f"two.*{made[0].request.__name__}"):
            Operations([*made, made[0]])
        made[0].value = Done
        with pytest.raises(RuntimeError, match=made[0].request.__name__):
            Operations(made)


@pytest.mark.parametrize("kind", registry._ALL, ids=lambda kind: BY_REQUEST[kind.request].name)
async def test_the_form_of_an_operation_fits_its_kind(tmp_path: Path, kind: type[Any]) -> None:
    """Writes are jobs, and nothing else is."""
    row = BY_REQUEST[kind.request]
    assert issubclass(kind, QuickOperation | SlowOperation)
    assert issubclass(kind, Kind) == (row.kind == "write")
    async with operations_rig(tmp_path) as at:
        if issubclass(kind, Kind):
            made = kind(at.services)
            assert made.name == row.name
            assert made.frees_space == (row.name in ("model.remove", "store.sweep"))
