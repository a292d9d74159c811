"""The header of a safetensors file: its length in eight bytes, then JSON that says where the bytes of each tensor are.

{"__metadata__": {text: text}, tensor: {"dtype": "F16", "shape": [2, 3], "data_offsets": [begin, end]}}
"""

from __future__ import annotations

import os
from typing import Annotated, Final, NamedTuple

import msgspec

from modeld.inspect.header import Truncated, Unreadable

MAX_HEADER: Final = 100_000_000
"""The format's own limit."""

_MAX_READ: Final = 16 << 20
"""Bytes of a header that is read. The largest known models have 91,000 tensors, over 160 files: 10 MiB in one."""

_MAX_PAIRS: Final = 600_000
"""Of names and values in it: a tensor has four."""

SHORTEST: Final = 10
"""Bytes of a file: the length of the header, and an empty header."""

_METADATA: Final = "__metadata__"

_MAX_DIMENSIONS: Final = 64
_MAX_WEIGHTS: Final = 2**63 - 1
_MAX_TYPES: Final = 64

BITS: Final = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Of a weight of each type. A type that is not here only says where its tensor is."""

_Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Described(msgspec.Struct):
    dtype: Annotated[str, msgspec.Meta(max_length=32)]
    shape: tuple[_Natural, ...]
    data_offsets: tuple[_Natural, _Natural]


class Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    """From the end of the header."""

    size: int
    weights: int


class Safetensors(NamedTuple):
    header_bytes: int
    """With the eight of its length."""

    metadata: dict[str, str]
    tensors: list[Tensor]

    @property
    def needed_bytes(self) -> int:
        """How long the file must be."""
        return self.header_bytes + max((tensor.offset + tensor.size for tensor in self.tensors), default=0)


_decode_all = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_metadata = msgspec.json.Decoder(dict[str, str] | None).decode
_decode_tensor = msgspec.json.Decoder(_Described).decode


def read(descriptor: int, size: int) -> Safetensors:
    """The header of the open file of `size` bytes. Raises Unreadable, or Truncated when the file ends within it."""
    if size < SHORTEST:
        raise Truncated(SHORTEST)
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if length > MAX_HEADER:
        raise Unreadable(f"its first bytes are no length of a header: {length}")
    if 8 + length > size:
        raise Truncated(8 + length)
    if length > _MAX_READ:
        raise Unreadable(f"its header has {length} bytes; {_MAX_READ} are read at most")
    data = os.pread(descriptor, length, 8)
    if len(data) < length:
        raise Truncated(8 + length)
    if data.count(b":") > _MAX_PAIRS:
        raise Unreadable(f"its header has more than {_MAX_PAIRS} names")
    try:
        parts = _decode_all(data)
        metadata = _decode_metadata(parts.pop(_METADATA, b"{}")) or {}
        tensors = [_tensor(name, _decode_tensor(part)) for name, part in parts.items()]
    except (msgspec.MsgspecError, ValueError, RecursionError) as fault:
        raise Unreadable(f"its header is damaged: {str(fault)[:200]}") from None
    types = {tensor.dtype for tensor in tensors}
    if len(types) > _MAX_TYPES or sum(tensor.weights for tensor in tensors) > _MAX_WEIGHTS:
        raise Unreadable("it has more than 2^63 weights, or tensors of too many types")
    _check_places(tensors)
    return Safetensors(8 + length, metadata, tensors)


def _check_places(tensors: list[Tensor]) -> None:
    """The format lays them out one after the other, without a gap."""
    at = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.size)):
        if tensor.offset != at:
            raise Unreadable(f"its tensor {tensor.name[:80]!r} begins at {tensor.offset}, not at {at} after the others")
        at += tensor.size


def _tensor(name: str, described: _Described) -> Tensor:
    begin, end = described.data_offsets
    if end < begin:
        raise ValueError(f"the tensor {name[:80]!r} ends before it begins")
    if len(described.shape) > _MAX_DIMENSIONS:
        raise ValueError(f"the tensor {name[:80]!r} has {len(described.shape)} dimensions")
    weights = 1
    for count in described.shape:
        weights *= count
    bits = BITS.get(described.dtype)
    if bits is not None and weights * bits != (end - begin) * 8:
        raise ValueError(
            f"the tensor {name[:80]!r} has {end - begin} bytes for its shape {described.shape[:8]} of {described.dtype}"
        )
    return Tensor(name, described.shape, described.dtype, begin, end - begin, weights)
