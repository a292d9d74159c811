"""The header of a GGUF file, of version 2 or 3 and either byte order.

    magic "GGUF" · version · count of tensors · count of fields
    fields: key · type · value. An array has the type and the count of its items before them.
    tensors: name · count of dimensions · dimensions · type · offset from the end of the header, which is aligned

All strings have their length before them. A value that is an array, or long, stays in the file until it is requested.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from modeld.inspect.gguf_types import ARRAY, CODES, STRING, TENSOR_TYPES, UINT32, WIDTHS
from modeld.inspect.header import HeaderBytes, Truncated, Unreadable

MAGIC: Final = b"GGUF"

_BEGINNINGS: Final = {MAGIC + struct.pack(f"{order}I", version): order for version in (2, 3) for order in "<>"}
"""The magic and the version, with the order of the bytes. Version 1 has other widths, and no program writes it now."""

FIXED: Final = 24
"""The magic, the version and two counts: no file of these versions is shorter."""

_MAX_FIELDS: Final = 16_384
"""Models have 20 to 60."""

MAX_VALUES: Final = 8 << 20
"""Bytes of the values that are read on demand. The merges of the largest vocabularies take 6 MiB."""

MAX_ITEMS: Final = 600_000
"""Of the arrays among them. The largest vocabularies have 300,000 words."""

_MAX_KEY: Final = 65_535
"""Bytes, by the format."""

_MAX_KEYS: Final = 1 << 20
"""Bytes of all keys. Models have 2 KiB."""

_MAX_NAME: Final = 1024
"""Bytes of the name of a tensor. The library allows 64."""

_MAX_DIMENSIONS: Final = 8
"""The library allows four."""

_MAX_DEPTH: Final = 4
"""Of arrays within arrays, which no program writes."""

_MAX_WEIGHTS: Final = 2**63 - 1

_MAX_TYPES: Final = 64
"""Of tensors in one file. The format has 35 so far."""

_KEPT_TEXT: Final = 64 << 10
"""Bytes of a string that is kept with the fields."""

_KEPT_TEXTS: Final = 1 << 20
"""Bytes of all of them."""


class Field(NamedTuple):
    kind: int
    items: int | None
    """How many an array has; None when it is none."""

    at: int
    """Where the value begins in the file."""

    value: Any = None
    """None when it is in the file only."""

    item_kind: int | None = None
    """The type of the items of an array."""


class Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    """From the end of the header."""

    weights: int

    @property
    def size(self) -> int:
        """In bytes; 0 for an unknown type."""
        known = TENSOR_TYPES.get(self.kind)
        return 0 if known is None else -(-self.weights // known.weights) * known.bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Gguf:
    order: str
    version: int
    fields: dict[str, Field]
    tensor_count: int
    tensors_at: int
    """Where the tensors are described."""

    weights: int
    """Of all tensors."""

    type_bytes: dict[int, int]
    """The bytes of the tensors of each type."""

    needed_bytes: int
    """How long the file must be at least."""

    def tensors(self, descriptor: int, size: int) -> Iterator[Tensor]:
        """Reads them from the file. Raises what `read` does."""
        source = HeaderBytes(descriptor, size, at=self.tensors_at, order=self.order)
        for _ in range(self.tensor_count):
            yield _tensor(source)

    def values(self, descriptor: int, size: int, keys: Iterable[str]) -> dict[str, Any]:
        """The whole values of these fields, read from the file where they are not kept. KeyError when there is no such
        field, Unreadable when they are too long together."""
        source = HeaderBytes(descriptor, size, order=self.order, most_bytes=MAX_VALUES, most_parts=MAX_ITEMS)
        found: dict[str, Any] = {}
        for key in keys:
            field = self.fields[key]
            source.at = field.at
            if field.value is not None:
                found[key] = field.value
            else:
                found[key] = _text(source) if field.items is None else _array(source, 1)
        return found


def read(descriptor: int, size: int) -> Gguf:
    """The header of the open file of `size` bytes. Raises Unreadable, or Truncated when the file ends within it."""
    source = HeaderBytes(descriptor, size)
    beginning = source.take(min(size, 8))
    if not beginning or not any(known.startswith(beginning) for known in _BEGINNINGS):
        raise Unreadable("it does not begin as a GGUF file of version 2 or 3")
    if size < FIXED:
        raise Truncated(FIXED)
    source.order = _BEGINNINGS[beginning]
    (version,) = struct.unpack(f"{source.order}I", beginning[4:])
    tensor_count, field_count = source.count(0), source.count(0)
    if field_count > _MAX_FIELDS:
        raise Unreadable(f"it has {field_count} fields; {_MAX_FIELDS} are read at most")
    fields = _fields(source, field_count)
    alignment = _alignment(fields)
    tensors_at = source.at
    weights = last = end = 0
    type_bytes: dict[int, int] = {}
    for _ in range(tensor_count):
        tensor = _tensor(source)
        weights += tensor.weights
        type_bytes[tensor.kind] = type_bytes.get(tensor.kind, 0) + tensor.size
        # The others end before it: programs that give a type another number may give it another size.
        if tensor.offset > last:
            last, end = tensor.offset, tensor.offset + tensor.size
        elif tensor.offset == last:
            end = max(end, tensor.offset + tensor.size)
        if weights > _MAX_WEIGHTS or len(type_bytes) > _MAX_TYPES:
            raise Unreadable("it has more than 2^63 weights, or tensors of too many types")
    return Gguf(
        order=source.order,
        version=version,
        fields=fields,
        tensor_count=tensor_count,
        tensors_at=tensors_at,
        weights=weights,
        type_bytes=type_bytes,
        needed_bytes=-(-source.at // alignment) * alignment + end if tensor_count else source.at,
    )


def _fields(source: HeaderBytes, count: int) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    room, room_for_keys = _KEPT_TEXTS, _MAX_KEYS
    for _ in range(count):
        key = _name(source, min(_MAX_KEY, room_for_keys))
        room_for_keys -= len(key)
        if key in fields:
            raise Unreadable(f"it has the field {key[:80]!r} twice")
        kind = source.number("I")
        at = source.at
        if kind == STRING:
            length = source.length()
            if length <= min(_KEPT_TEXT, room):
                room -= length
                fields[key] = Field(kind, None, at, source.take(length).decode(errors="replace"))
            else:
                source.skip(length)
                fields[key] = Field(kind, None, at)
        elif kind == ARRAY:
            fields[key] = _skip_array(source, at, 1)
        else:
            fields[key] = Field(kind, None, at, _scalar(source, kind))
    return fields


def _alignment(fields: dict[str, Field]) -> int:
    field = fields.get("general.alignment")
    if field is None:
        return 32
    alignment = field.value
    if field.kind != UINT32 or not alignment or alignment & (alignment - 1):
        raise Unreadable(f"it has the alignment {str(alignment)[:80]}")
    assert isinstance(alignment, int)
    return alignment


def _name(source: HeaderBytes, most: int) -> str:
    length = source.length()
    if length > most:
        raise Unreadable(f"it has a name of {length} bytes, where {most} are read at most")
    try:
        return source.take(length).decode()
    except UnicodeDecodeError:
        raise Unreadable("it has a name that is no UTF-8") from None


def _text(source: HeaderBytes) -> str:
    """With a mark for each byte that is no UTF-8: tokens have such bytes."""
    return source.take(source.length()).decode(errors="replace")


def _scalar(source: HeaderBytes, kind: int) -> int | float | bool:
    if kind not in CODES:
        raise Unreadable(f"it has a value of the unknown type {kind}")
    value: int | float | bool = struct.unpack(f"{source.order}{CODES[kind]}", source.take(WIDTHS[kind]))[0]
    return value


def _items(source: HeaderBytes) -> tuple[int, int]:
    """The type of an array's items, and their count."""
    source.counted(1)
    kind = source.number("I")
    if kind in WIDTHS:
        return kind, source.number("Q")
    if kind not in (STRING, ARRAY):
        raise Unreadable(f"it has an array of the unknown type {kind}")
    return kind, source.count(8 if kind == STRING else 12)


def _skip_array(source: HeaderBytes, at: int, depth: int) -> Field:
    kind, count = _items(source)
    if kind == STRING:
        source.skip_strings(count)
    elif kind == ARRAY:
        if depth == _MAX_DEPTH:
            raise Unreadable(f"it has arrays within arrays, more than {_MAX_DEPTH} deep")
        for _ in range(count):
            _skip_array(source, source.at, depth + 1)
    else:
        source.skip(WIDTHS[kind] * count)
    return Field(ARRAY, count, at, item_kind=kind)


def _array(source: HeaderBytes, depth: int) -> list[Any]:
    kind, count = _items(source)
    if kind == STRING:
        return [_text(source) for _ in range(count)]
    if kind == ARRAY:
        if depth == _MAX_DEPTH:
            raise Unreadable(f"it has arrays within arrays, more than {_MAX_DEPTH} deep")
        return [_array(source, depth + 1) for _ in range(count)]
    source.counted(count)
    data = source.take(WIDTHS[kind] * count)
    return list(struct.unpack(f"{source.order}{count}{CODES[kind]}", data))


def _tensor(source: HeaderBytes) -> Tensor:
    name = _name(source, _MAX_NAME)
    dimensions = source.number("I")
    if dimensions > _MAX_DIMENSIONS:
        raise Unreadable(f"it has a tensor of {dimensions} dimensions")
    shape = struct.unpack(f"{source.order}{dimensions}Q", source.take(8 * dimensions))
    kind, offset = source.number("I"), source.number("Q")
    weights = 1
    for length in shape:
        weights *= length
    if max(weights, *shape, offset) > _MAX_WEIGHTS:
        raise Unreadable("it has a tensor of more than 2^63 weights, or that begins beyond")
    return Tensor(name, shape, kind, offset, weights)
