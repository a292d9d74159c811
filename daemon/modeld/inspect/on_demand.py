"""Values and tensors of one header, read when a client requests them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from modeld.inspect import gguf, safetensors
from modeld.inspect.formats import HEAD_BYTES, format_of_content
from modeld.inspect.gguf_types import TENSOR_TYPES
from modeld.inspect.header import Unreadable
from modelwire.values import TensorView

_SHOWN_ITEMS: Final = 32
"""Of an array that a pattern matches; a vocabulary is given to whom names its key."""


def values_of(descriptor: int, size: int, wanted: Sequence[str]) -> dict[str, Any]:
    """The values of keys, or of patterns of keys. A key that does not exist is absent. Of a long array that only a
    pattern matches, the count. Raises Unreadable."""
    match format_of_content(os.pread(descriptor, HEAD_BYTES, 0)):
        case "gguf":
            header = gguf.read(descriptor, size)
            found: dict[str, Any] = {}
            for key, field in header.fields.items():
                if key in wanted or ((field.items or 0) <= _SHOWN_ITEMS and _matches(key, wanted)):
                    found[key] = header.value(descriptor, size, key)
                elif _matches(key, wanted):
                    found[key] = {"items": field.items}
            return found
        case "safetensors":
            metadata = safetensors.read(descriptor, size).metadata
            return {key: text for key, text in metadata.items() if key in wanted or _matches(key, wanted)}
    raise Unreadable("its bytes are of no format with such a header")


def tensors_of(descriptor: int, size: int) -> Iterator[TensorView]:
    """Raises Unreadable."""
    match format_of_content(os.pread(descriptor, HEAD_BYTES, 0)):
        case "gguf":
            for tensor in gguf.read(descriptor, size).tensors(descriptor, size):
                known = TENSOR_TYPES.get(tensor.kind)
                name = f"type {tensor.kind}" if known is None else known.name
                yield TensorView(name=tensor.name, type=name, shape=tensor.shape, size_bytes=tensor.size)
        case "safetensors":
            for each in safetensors.read(descriptor, size).tensors:
                yield TensorView(name=each.name, type=each.dtype, shape=each.shape, size_bytes=each.size)
        case _:
            raise Unreadable("its bytes are of no format with such a header")


def _matches(key: str, wanted: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in wanted)
