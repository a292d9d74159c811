"""The base of all values."""

from __future__ import annotations

from msgspec import Struct


class Value(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all values: unknown fields of a newer daemon are ignored by an older client."""
