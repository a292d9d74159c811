"""The fields of a GGUF header by the types that their readers expect.

A field of another type is as good as absent: a header is not trusted to be what its writer should have written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modeld.inspect.gguf import Gguf

MAX_LAYERS: Final = 4096
"""The largest models have some 130."""

_MAX_TEXT: Final = 2000
"""Characters: a name, not a text."""

_MAX_NUMBER: Final = 2**53
"""Counts and lengths beyond are no such thing, and JSON readers would round them."""


@dataclass(frozen=True, slots=True)
class Keys:
    header: Gguf
    descriptor: int
    size: int

    @property
    def architecture(self) -> str | None:
        return self.text("general.architecture")

    def text(self, key: str) -> str | None:
        field = self.header.fields.get(key)
        return field.value[:_MAX_TEXT] or None if field is not None and isinstance(field.value, str) else None

    def number(self, key: str) -> int | None:
        field = self.header.fields.get(key)
        return None if field is None else _natural(field.value)

    def items(self, key: str) -> int | None:
        """How many an array has."""
        field = self.header.fields.get(key)
        return None if field is None else field.items

    def has(self, key: str) -> bool:
        return key in self.header.fields

    def of_model(self, key: str) -> int | None:
        """A number under the name of the architecture."""
        return self.number(f"{self.architecture}.{key}")

    def per_layer(self, key: str, layers: int) -> list[int] | None:
        """A number under the name of the architecture for each layer: one for all, or an array of so many at least.
        None for more layers than a model has."""
        key = f"{self.architecture}.{key}"
        field = self.header.fields.get(key)
        if field is None or layers > MAX_LAYERS:
            return None
        if field.items is None:
            one = _natural(field.value)
            return None if one is None else [one] * layers
        if not layers <= field.items <= MAX_LAYERS:
            return None
        given = self.header.values(self.descriptor, self.size, [key])[key][:layers]
        numbers = [number for each in given if (number := _natural(each)) is not None]
        return numbers if len(numbers) == layers else None


def _natural(value: object) -> int | None:
    return int(value) if isinstance(value, int) and 0 <= value <= _MAX_NUMBER else None
