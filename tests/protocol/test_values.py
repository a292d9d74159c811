"""All values have one home to be imported from."""

from __future__ import annotations

from modelwire import values
from modelwire.operations import OPERATIONS


def kinds(of: type[values.Value]) -> set[type[values.Value]]:
    return {of}.union(*(kinds(kind) for kind in of.__subclasses__()))


def test_each_value_is_imported_from_one_place() -> None:
    written = {kind for kind in kinds(values.Value) if kind.__module__.startswith(values.__name__)}
    assert written == {kind for kind in vars(values).values() if isinstance(kind, type)}
    assert written > {row.value for row in OPERATIONS.values()}
