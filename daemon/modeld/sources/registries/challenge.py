"""Parses WWW-Authenticate, which says how a registry wants the client to authenticate."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9._~-]*)(?:\s+|$)")
_PARAMETER = re.compile(r'\s*([A-Za-z0-9._~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*(?:,|$)?')


@dataclass(frozen=True, slots=True)
class Challenge:
    scheme: str
    """In lower case: `bearer`, `basic`."""

    parameters: dict[str, str] = field(default_factory=dict)


def challenges(header: str) -> list[Challenge]:
    """The challenges of one header, in its order, up to the first that cannot be parsed."""
    found: list[Challenge] = []
    at = 0
    while at < len(header):
        scheme = _SCHEME.match(header, at)
        if scheme is None:
            break
        at = scheme.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(header, at)) is not None:
            name, quoted, plain = parameter.groups()
            parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain)
            at = parameter.end()
        found.append(Challenge(scheme[1].lower(), parameters))
        while at < len(header) and header[at] in ", \t":
            at += 1
    return found
