"""The rules of [trust], made of the configuration."""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import unquote

from modeld.config import ConfigError
from modeld.config.trust import TrustSettings
from modeld.signatures.rules import Rule, Rules, folded
from modeld.sources.parse import parse
from modelwire.errors import InvalidRequest

_ADDRESSES: Final = ("https://", "http://")
_FILES: Final = "local:"

_LITERAL: Final = re.compile(r"[^*?[]*")
"""What a pattern begins with, before its first wildcard."""

_NO_PATH: Final = re.compile(r"//|/\.{1,2}(?:/|$)|/$")


def trust_rules(settings: TrustSettings) -> Rules:
    """Raises ConfigError for a pattern that no reference ever has. Blocks: it looks where links lead."""
    for rule in settings.require:
        for pattern in rule.references:
            if pattern.startswith(_ADDRESSES):
                _check_address(pattern)
            elif pattern.startswith(_FILES):
                _check_path(pattern)
    made = (Rule(number, rule.references, rule.keys, rule.roots) for number, rule in enumerate(settings.require, 1))
    return Rules(tuple(made))


def _check_address(pattern: str) -> None:
    """A reference has no user, no default port, no secret and no fragment, and its host is in small ASCII letters. The
    pages of a hub have references of their own kind: by their address the pattern would match none of them."""
    address = f"https://{pattern.removeprefix('http://')}" if pattern.startswith("http://") else pattern
    try:
        text = parse(address).text
    except InvalidRequest:
        text = ""
    if not text.startswith(_ADDRESSES):
        raise _of_nothing(
            pattern, 'Write the canonical spelling, which `modelctl show` has: "hf:org/*" for pages of Hugging Face.'
        )
    written = f"{address}/" if address.endswith("*") and text == f"{address}/" else address  # "https://*": any path too
    if folded(unquote(text)) != folded(unquote(written)):
        raise _of_nothing(pattern, f'Write "{text}".')
    if pattern.startswith("http://") and address.removeprefix("https://").partition("/")[0].endswith(":80"):
        raise _of_nothing(pattern, "Leave out the port 80, as references do.")


def _check_path(pattern: str) -> None:
    """References have the absolute path, without symbolic links."""
    path = pattern.removeprefix(_FILES)
    if _NO_PATH.search(path):
        raise _of_nothing(pattern, "Write an absolute path without `//`, `.` and `..`, and without a `/` at its end.")
    literal = "" if (found := _LITERAL.match(path)) is None else found.group()
    directory = literal if literal == path else literal.rpartition("/")[0]
    if directory and (real := os.path.realpath(directory)) != directory:
        raise _of_nothing(
            pattern, f'{directory} leads to {real}: write "{_FILES}{real}{path.removeprefix(directory)}".'
        )


def _of_nothing(pattern: str, hint: str) -> ConfigError:
    return ConfigError(f"trust.require: references: no reference to a model is written {pattern!r:.120}", hint=hint)
