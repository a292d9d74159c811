"""GGUF files of a few fields and tensors, written by hand: also such as no library writes."""

from __future__ import annotations

import struct
from typing import Any

_KINDS = {int: (10, "Q"), float: (6, "f"), bool: (7, "?")}


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> tuple[int, bytes]:
    if isinstance(value, str):
        return 8, _text(value)
    if isinstance(value, list):
        kind = _value(value[0])[0]
        return 9, struct.pack("<IQ", kind, len(value)) + b"".join(_value(each)[1] for each in value)
    kind, code = _KINDS[type(value)]
    return kind, struct.pack(f"<{code}", value)


def gguf_file(fields: dict[str, Any], tensors: dict[str, tuple[int, int, int]] | None = None) -> bytes:
    """The whole file. A tensor has its type, its weights and its bytes, which are zeros."""
    tensors = tensors or {}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    for key, each in fields.items():
        kind, data = _value(each)
        head += _text(key) + struct.pack("<I", kind) + data
    at = 0
    for name, (kind, weights, size) in tensors.items():
        head += _text(name) + struct.pack("<IQIQ", 1, weights, kind, at)
        at += -(-size // 32) * 32
    return head + bytes(-len(head) % 32) + bytes(at) if tensors else head
