"""What the bytes of one file say about themselves: their format, the facts of the header, and what speaks against them.

A file that cannot be the model that its name promises has a fault: an error page, a pointer to the file, half a file.
A file of a format that is not known has none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from modeld.inspect import gguf, gguf_facts, safetensors, safetensors_facts
from modeld.inspect.formats import CERTAIN, HEAD_BYTES, format_of_content, promised_format
from modeld.inspect.header import Truncated, Unreadable
from modeld.inspect.other_documents import other_document
from modelwire.values import ModelFacts

READER: Final = 1
"""Raised when the readers find more, or other facts, in the same bytes."""


@dataclass(frozen=True, slots=True)
class Inspection:
    facts: ModelFacts | None = None
    """None when the bytes are of no known format, or could not be inspected."""

    fault: str | None = None
    """Why the bytes are certainly not what the file's name promises."""

    surprise: str | None = None
    """What the name promises and the bytes are not, where that may be intended."""

    @property
    def doubt(self) -> str | None:
        """Why the file is not certainly a model that the readers understand."""
        if self.facts is None:
            return self.fault or self.surprise or "its bytes are of no known format"
        return self.fault or self.surprise or self.facts.opaque


class _Reader(NamedTuple):
    shortest: int
    """Bytes of the shortest file."""

    read: Callable[[int, int], tuple[ModelFacts, int]]
    """The facts of an open file of a size, and how long it must be."""


def _read_gguf(descriptor: int, size: int) -> tuple[ModelFacts, int]:
    header = gguf.read(descriptor, size)
    return gguf_facts.facts_of(header, descriptor, size), header.needed_bytes


def _read_safetensors(descriptor: int, size: int) -> tuple[ModelFacts, int]:
    header = safetensors.read(descriptor, size)
    return safetensors_facts.facts_of(header), header.needed_bytes


_READERS: Final = {
    "gguf": _Reader(gguf.FIXED, _read_gguf),
    "safetensors": _Reader(safetensors.SHORTEST, _read_safetensors),
}


def inspect(descriptor: int, size: int, name: str) -> Inspection:
    """Of the open file of `size` bytes that has this name where it comes from. Raises OSError only."""
    head = os.pread(descriptor, HEAD_BYTES, 0)
    promised = promised_format(name)
    known = format_of_content(head)
    if promised in _READERS and (document := other_document(head)):
        return Inspection(fault=f"it is {document}")
    # Too few bytes may not say themselves what they are the beginning of.
    kind = known or (promised if promised in _READERS and size < _READERS[promised].shortest else None)
    facts, needed = (None, 0) if kind is None else _read(kind, descriptor, size)
    if kind is None or (known is None and needed <= size):
        return Inspection(surprise=_surprise(None, promised))
    surprise = _surprise(kind, promised)
    if needed <= size:
        return Inspection(facts, surprise=surprise)
    shortest = _READERS[kind].shortest
    least = f"a {kind} file has {shortest} at least" if size < shortest else f"by its own header {needed} at least"
    return Inspection(facts, f"it is cut off: it has {size} bytes, and {least}", surprise)


def _surprise(kind: str | None, promised: str | None) -> str | None:
    if promised is None or kind == promised or (kind is None and promised not in CERTAIN):
        return None
    return f"its name promises {promised}, and its bytes are {'of no known format' if kind is None else kind}"


def _read(kind: str, descriptor: int, size: int) -> tuple[ModelFacts, int]:
    if kind not in _READERS:
        return ModelFacts(format=kind), 0
    try:
        return _READERS[kind].read(descriptor, size)
    except Truncated as fault:
        return ModelFacts(format=kind, opaque=str(fault)), max(fault.needed, size + 1)
    except Unreadable as fault:
        return ModelFacts(format=kind, opaque=str(fault)[:500]), 0
