"""`modeld --print-config`: the settings as a configuration file, with a comment that describes each key.

The output parses back to the same settings, so it can be saved and edited.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from modeld.config.fields import Key, keys
from modeld.config.settings import Settings
from modelwire.units import Duration, Size, format_duration, format_size, parse_duration

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dump(settings: Settings) -> str:
    """The settings as TOML, with a comment for each key."""
    lines: list[str] = []
    for table, members in keys().items():
        source: Any = getattr(settings, table) if table else settings
        if table:
            lines += ["", f"[{table}]"]
        for key in members.values():
            lines += _entry(key, getattr(source, key.name))
    return "\n".join(lines) + "\n"


def _entry(key: Key, value: Any) -> list[str]:
    comment = f"# {key.description}"
    if value is None:
        return [comment, f"# {key.name} is not set"]
    return [comment, f"{key.name} = {_value(value)}"]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Size):
        text = format_size(value)
        return text if text.isdigit() else _string(text)
    if isinstance(value, Duration):
        text = format_duration(value)
        return _string(text) if parse_duration(text) == value else repr(float(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        entries = ", ".join(f"{_name(name)} = {_value(entry)}" for name, entry in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, msgspec.Struct):
        return _value(msgspec.structs.asdict(value))
    return _string(str(value))


def _name(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    """A TOML basic string: quotes, backslashes and control characters escaped."""
    escaped = "".join(
        f"\\{char}" if char in '"\\' else f"\\u{ord(char):04x}" if ord(char) < 0x20 or ord(char) == 0x7F else char
        for char in text
    )
    return f'"{escaped}"'
