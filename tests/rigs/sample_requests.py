"""A valid request of each operation, with the fields that it needs."""

from __future__ import annotations

from typing import Any, Final

from modelwire.operations import OPERATIONS

_FIELDS: Final[dict[str, object]] = {
    **{"protocol": 1, "target": "1", "path": "/a", "name": "a", "job": "j", "priority": 3, "lease": "0123456789abcdef"},
    **{"source": "a", "destination": "b", "ref": "hf:a/b", "signature": "{}", "manifest": {}},
    **{"command": {}, "command_id": "x", "reason": "y"},
}


def sample_request(operation: str, **given: object) -> dict[str, Any]:
    """`given` takes the place of the id, the operation, and those fields that the operation has."""
    offer = {"transfer": "t", "paths": ["a"]} if operation == "files.offer" else {}  # others need no transfer
    known = OPERATIONS[operation].request.__struct_encode_fields__
    return {
        field: value
        for field, value in {"id": "1", "op": operation, **_FIELDS, **offer, **given}.items()
        if field in ("id", "op", *known)
    }
