"""Loads `Settings` from the file, the environment and the flags; each overrides the one before it.

Each layer is checked by itself, so an error names the file, variable or flag that holds the wrong value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from modeld.config.errors import ConfigError
from modeld.config.fields import Key, all_keys, decode, decode_hook, keys
from modeld.config.file import first_file
from modeld.config.settings import Settings
from modelwire.endpoint import config_paths

NOT_SETTINGS: Final = frozenset({"MODELD_CONFIG", "MODELD_READY_FD"})
"""Variables of the daemon that are not settings."""

MIN_SIMILARITY: Final = 0.75
"""difflib's ratio from which an unknown key counts as a misspelled one: `min_fre` for `min_free` has 0.93, `group` for
`grace` 0.6."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, the path of their file (None without one), and warnings for the log."""

    settings: Settings
    path: str | None
    warnings: tuple[str, ...]


_Values = dict[str, dict[str, Any]]

CHECK_HINT = "Run `modeld --check-config` to see every problem."


def load(environ: Mapping[str, str], *, overrides: Mapping[str, Any] | None = None, path: str | None = None) -> Loaded:
    """The settings. `overrides` holds the flags by dotted key (`log.level`), None for one that is not given. `path` is
    the configuration file that a flag names. Raises ConfigError."""
    problems: list[str] = []
    named = bool(path or environ.get("MODELD_CONFIG", "").strip())
    found, content = first_file([path] if path else config_paths(environ), explicit=named)
    values: _Values = {table: {} for table in keys()}
    _read_file(found or "", content, values, problems)
    _read_environment(environ, values, problems)
    _read_overrides(overrides or {}, values, problems)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(problems[0] + more, hint=CHECK_HINT, problems=problems)
    top = values.pop("")
    try:
        settings = msgspec.convert({**top, **values}, Settings, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        # Only a rule of a whole table can still fail; its message names the key, the path names the table.
        reason, _, where = str(error).partition(" - at `$")
        fault = f"{where.strip('.`')}.{reason}".lstrip(".")
        raise ConfigError(_placed(fault, environ, overrides or {}, found)) from None
    return Loaded(settings, found, _misspelled_variables(environ))


def _placed(fault: str, environ: Mapping[str, str], overrides: Mapping[str, Any], file: str | None) -> str:
    """The fault of a value, after the place that the value comes from: a flag and a variable are above the file."""
    path = fault.partition(":")[0]
    key = next((key for key in all_keys() if key.path == path), None)
    if key is None or overrides.get(path) is not None:
        return fault
    if environ.get(key.variable, "").strip():
        return key.variable + fault.removeprefix(path)
    return f"{file}: {fault}" if file else fault


def _read_file(path: str, content: Mapping[str, Any], values: _Values, problems: list[str]) -> None:
    tables = keys()
    for name, value in content.items():
        if name in tables and name:
            if not isinstance(value, dict):
                problems.append(f"{path}: {name}: expected a table, got {value!r:.60}")
                continue
            for inner, inner_value in value.items():
                key = tables[name].get(inner)
                if key is None:
                    problems.append(f"{path}: unknown key {inner!r} in table [{name}]{_did_you_mean(inner, name)}")
                else:
                    _take(key, inner_value, f"{path}: {key.path}", values, problems, text=False)
        elif name in tables[""]:
            _take(tables[""][name], value, f"{path}: {name}", values, problems, text=False)
        else:
            kind = "table" if isinstance(value, dict) else "key"
            problems.append(f"{path}: unknown {kind} {name!r}{_did_you_mean(name, '')}")


def _read_environment(environ: Mapping[str, str], values: _Values, problems: list[str]) -> None:
    for key in all_keys():
        text = environ.get(key.variable, "").strip()
        if text:  # empty counts as unset
            _take(key, text, key.variable, values, problems, text=True)


def _read_overrides(overrides: Mapping[str, Any], values: _Values, problems: list[str]) -> None:
    for path, value in overrides.items():
        table, _, name = path.rpartition(".")
        key = keys().get(table, {}).get(name)
        if key is None:
            problems.append(f"unknown setting {path!r}{_did_you_mean(name, table)}")
        elif value is not None:
            _take(key, value, path, values, problems, text=isinstance(value, str))


def _take(key: Key, value: Any, place: str, values: _Values, problems: list[str], *, text: bool) -> None:
    """Checks one value and overrides that of the layer below. `text` is true for a variable or a flag."""
    try:
        if key.item_type is not None and isinstance(value, str) and text:
            value = _items(value, key.item_type)
        if key.entry_type is None:
            values[key.table][key.name] = decode(key.type, value, text=text)
            return
        entries = _pairs(value) if text else value
    except ValueError as error:
        problems.append(f"{place}: {error}")
        return
    if not isinstance(entries, dict):
        problems.append(f'{place}: expected a table such as {{ alice = "read" }}, got {value!r:.60}')
        return
    taken: dict[str, Any] = {}
    for name, entry in entries.items():
        try:
            taken[name] = decode(key.entry_type, entry, text=False)
        except ValueError as error:
            problems.append(f"{place}.{name}: {error}")
    values[key.table][key.name] = taken


def _items(text: str, item_type: Any) -> list[Any]:
    """`a.example,b.example`, or `hf:=https://a.example,oci:=https://b.example`, as a variable writes a list."""
    if item_type is str:
        return [item for piece in text.split(",") if (item := piece.strip())]
    first, second = item_type.__struct_fields__
    return [{first: name, second: value} for name, value in _pairs(text).items()]


def _pairs(text: str) -> dict[str, str]:
    """`alice=write,bob=read`, as a variable writes a table."""
    pairs: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise ValueError(f"expected pairs such as 'alice=write,bob=read', got {part!r:.60}")
        pairs[name] = value
    return pairs


def _did_you_mean(name: str, table: str) -> str:
    from difflib import get_close_matches

    tables = keys()
    near = [*tables.get(table, ())] + ([known for known in tables if known] if not table else [])
    if match := get_close_matches(name, near, 1, MIN_SIMILARITY):
        return f"; did you mean {match[0]!r}?"
    # The other common mistake is a valid key in the wrong table.
    for key in all_keys():
        if key.name == name:
            return f"; it belongs in table [{key.table}]" if key.table else "; it belongs before the first table"
    return ""


def _misspelled_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Warnings for variables that look like a misspelled setting. Not errors: the daemon shares the environment with
    clients and with other versions of modeld, which may know more names."""
    from difflib import get_close_matches

    known = [key.variable for key in all_keys()]
    warnings = []
    for name in sorted(environ):
        if not name.startswith("MODELD_") or name in NOT_SETTINGS or name in known:
            continue
        if match := get_close_matches(name, known, 1, 0.9):
            warnings.append(f"{name} is not a setting and was ignored; did you mean {match[0]}?")
    return tuple(warnings)
