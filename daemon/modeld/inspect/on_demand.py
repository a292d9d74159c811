"""Values and tensors of one header, read when a client requests them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import translate
from typing import Any, Final

from modeld.inspect import gguf, safetensors
from modeld.inspect.formats import HEAD_BYTES, format_of_content
from modeld.inspect.gguf_types import ARRAY, TENSOR_TYPES
from modeld.inspect.header import Unreadable
from modelwire.values import TensorView

_WILD: Final = re.compile(r"[*?\[]")
"""What makes a key a pattern."""

_SHOWN_ITEMS: Final = 32
"""Of an array that a pattern matches; a vocabulary is given to whom names its key."""

_LONGEST_KEY: Final = 256
"""Bytes of a key that is compared with patterns."""


def values_of(descriptor: int, size: int, wanted: Sequence[str]) -> dict[str, Any]:
    """The values of keys, or of patterns of keys. A key that does not exist is absent. Of a long value that only a
    pattern matches, its length. Raises Unreadable."""
    exact, patterns = frozenset(wanted), [re.compile(translate(each)) for each in wanted if _WILD.search(each)]
    match format_of_content(os.pread(descriptor, HEAD_BYTES, 0)):
        case "gguf":
            header = gguf.read(descriptor, size)
            matching = [key for key in header.fields if key in exact or _matches(key, patterns)]
            long = {key: _length(header.fields[key]) for key in matching if key not in exact}
            read = header.values(descriptor, size, [key for key in matching if long.get(key) is None])
            return {key: read[key] if key in read else long[key] for key in matching}
        case "safetensors":
            metadata = safetensors.read(descriptor, size).metadata
            return {key: text for key, text in metadata.items() if key in exact or _matches(key, patterns)}
    raise Unreadable("its bytes are of no format with such a header")


def _length(field: gguf.Field) -> dict[str, int | None] | None:
    """Of a value that a list has no room for."""
    if field.value is not None:
        return None
    if field.items is None:
        return {"characters": None}
    short = field.items <= _SHOWN_ITEMS and field.item_kind != ARRAY
    return None if short else {"items": field.items}


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


def _matches(key: str, patterns: Sequence[re.Pattern[str]]) -> bool:
    return len(key) <= _LONGEST_KEY and any(pattern.match(key) for pattern in patterns)
