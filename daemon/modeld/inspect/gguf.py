"""The header of a GGUF file, read as far as it says how long the file must be.

The header is not trusted: each count and length in it is checked against the file before it is used.
"""

from __future__ import annotations

import os
import struct
from typing import Final

MAGIC: Final = b"GGUF"

_BEGINNINGS: Final = {MAGIC + struct.pack(f"{order}I", version): order for version in (2, 3) for order in "<>"}
"""The magic and the version, with the order of the bytes. Version 1 has other widths, and no program writes it now."""

_MAX_ITEMS: Final = 4_000_000
"""Strings, fields and tensors together. The largest vocabularies have 300,000 words, in two or three lists."""

FIXED: Final = 24
"""The magic, the version and two counts: no file of these versions is shorter."""

_MAX_NAME: Final = 65_535
_MAX_DIMENSIONS: Final = 8
"""The library allows four."""

_WINDOW: Final = 1 << 20

_STRING, _ARRAY, _UINT32 = 8, 9, 4
_WIDTHS: Final = {0: 1, 1: 1, 2: 2, 3: 2, _UINT32: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value of each scalar type."""

BLOCKS: Final = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
}
"""Weights in a block, and bytes of a block, of each type of tensor. A type that is not here only says where its tensor
begins."""


class Unreadable(Exception):
    """This is no header that the reader knows: it says nothing about the file."""


class Truncated(Exception):
    """The file ends before its header does."""


def needed_bytes(descriptor: int, size: int) -> int:
    """How long the file must be at least. Raises Truncated when the file of `size` bytes ends within its header."""
    head = _Head(descriptor, size)
    beginning = head.take(min(size, 8))
    if not beginning or not any(known.startswith(beginning) for known in _BEGINNINGS):
        raise Unreadable("it does not begin as a GGUF file of a known version")
    if size < FIXED:
        raise Truncated
    head.order = _BEGINNINGS[beginning]
    tensors, fields = head.number("Q"), head.number("Q")
    if max(tensors, fields) > _MAX_ITEMS:
        raise Unreadable(f"its header counts {max(tensors, fields)} parts")
    alignment = 32
    for _ in range(fields):
        name, kind = head.string(), head.number("I")
        if name == b"general.alignment" and kind == _UINT32:
            alignment = head.number("I")
        else:
            head.skip_value(kind)
    if not alignment or alignment & (alignment - 1):
        raise Unreadable(f"it has the alignment {alignment}")
    end = 0
    for _ in range(tensors):
        end = max(end, head.tensor_end())
    return head.at if not tensors else -(-head.at // alignment) * alignment + end


class _Head:
    """The bytes from the front of the file, read a window at a time."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.order = "<"
        self.at = 0
        self._descriptor = descriptor
        self._size = size
        self._window = b""
        self._window_at = 0
        self._items = 0

    def take(self, length: int) -> bytes:
        begin = self.at - self._window_at
        if not 0 <= begin <= len(self._window) - length:
            if length > self._size - self.at:
                raise Truncated
            self._window = os.pread(self._descriptor, max(length, _WINDOW), self.at)
            self._window_at, begin = self.at, 0
            if len(self._window) < length:
                raise Truncated
        self.at += length
        return self._window[begin : begin + length]

    def skip(self, length: int) -> None:
        if length > self._size - self.at:
            raise Truncated
        self.at += length

    def number(self, code: str) -> int:
        layout = f"{self.order}{code}"
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def string(self) -> bytes:
        length = self._counted("Q")
        if length > _MAX_NAME:
            raise Unreadable(f"it has a name of {length} bytes")
        return self.take(length)

    def skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self.skip(self._counted("Q"))
        elif kind == _ARRAY:
            self._skip_array()
        elif kind in _WIDTHS:
            self.skip(_WIDTHS[kind])
        else:
            raise Unreadable(f"it has a value of the type {kind}")

    def _skip_array(self) -> None:
        kind, count = self.number("I"), self.number("Q")
        if kind in _WIDTHS:
            self.skip(_WIDTHS[kind] * count)
        elif kind == _STRING:
            if count * 8 > self._size - self.at:
                raise Truncated
            for _ in range(count):
                self.skip(self._counted("Q"))
        else:
            raise Unreadable(f"it has an array of the type {kind}")

    def tensor_end(self) -> int:
        """Where the tensor's data end, from the first byte after the header."""
        self.string()
        dimensions = self.number("I")
        if dimensions > _MAX_DIMENSIONS:
            raise Unreadable(f"it has a tensor of {dimensions} dimensions")
        weights = 1
        for _ in range(dimensions):
            weights *= self.number("Q")
        kind, offset = self.number("I"), self.number("Q")
        per_block, block_bytes = BLOCKS.get(kind, (1, 0))
        return offset + -(-weights // per_block) * block_bytes

    def _counted(self, code: str) -> int:
        self._items += 1
        if self._items > _MAX_ITEMS:
            raise Unreadable(f"its header has more than {_MAX_ITEMS} parts")
        return self.number(code)
