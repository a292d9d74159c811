"""The tables, keys and types of the settings, read from their Structs, and the decoding of one value.

Loading the file, the environment and the flags, and printing, all use this description: a new key is added in
`settings` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from modeld.config.settings import Settings
from modelwire.units import Duration, Rate, Size, parse_duration, parse_size


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `table` is empty at the top level."""

    table: str
    name: str
    type: Any
    description: str

    @property
    def path(self) -> str:
        return f"{self.table}.{self.name}" if self.table else self.name

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "MODELD_" + self.path.replace(".", "_").upper()

    @property
    def item_type(self) -> Any:
        """The type of a list's items, None for a key that is not a list."""
        return get_args(self.type)[0] if get_origin(self.type) is tuple else None

    @property
    def entry_type(self) -> Any:
        """The type of a mapping's values, None for a key that is not a mapping."""
        return get_args(self.type)[1] if get_origin(self.type) is dict else None


@cache
def keys() -> dict[str, dict[str, Key]]:
    """Every key, by table; the table of the top level is the empty string."""
    found: dict[str, dict[str, Key]] = {"": {}}
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found[field.name] = {inner.name: _key(field.name, inner) for inner in msgspec.structs.fields(field.type)}
        else:
            found[""][field.name] = _key("", field)
    return found


def all_keys() -> Iterator[Key]:
    for table in keys().values():
        yield from table.values()


def _key(table: str, field: msgspec.structs.FieldInfo) -> Key:
    declared, description = field.type, ""
    if get_origin(declared) is Annotated:
        description = next((m.description or "" for m in get_args(declared)[1:] if isinstance(m, msgspec.Meta)), "")
        # An integer keeps its Annotated type, which holds the bounds; get_origin needs the bare type of all others.
        bare = get_args(declared)[0]
        declared = declared if bare is int else bare
    return Key(table, field.name, declared, description)


def decode_hook(wanted: type, value: Any) -> Any:
    if wanted is Size:
        return parse_size(value)
    if wanted is Rate:
        return Rate(parse_size(value.removesuffix("/s") if isinstance(value, str) else value))
    if wanted is Duration:
        return parse_duration(value)
    raise NotImplementedError(wanted)  # the answer that msgspec expects for a type that the hook does not know


def decode(wanted: Any, value: Any, *, text: bool) -> Any:
    """One value of a setting. `text` is true for a variable or a flag, where every value is text. Raises ValueError."""
    if isinstance(value, str) and _may_be_none(wanted, value):
        return None
    try:
        return msgspec.convert(value, wanted, strict=not text, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        choices = _choices(wanted)
        if choices:
            raise ValueError(f"expected one of {', '.join(choices)}, got {_shown(value)}") from None
        reason = str(error).partition(" - at ")[0].replace("`", "")
        if reason.startswith("Expected"):
            # msgspec names the type of the value, or nothing; the operator recognises the value itself.
            reason = f"e{reason[1:].partition(', got ')[0]}, got {_shown(value)}"
        raise ValueError(reason) from None


def _may_be_none(wanted: Any, value: str) -> bool:
    """TOML and variables have no null: `none` removes a limit. For a path or a name, `none` is an ordinary value."""
    options = get_args(wanted)
    return NoneType in options and str not in options and value.strip().lower() == "none"


def _choices(wanted: Any) -> tuple[str, ...]:
    return get_args(wanted) if get_origin(wanted) is Literal else ()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
