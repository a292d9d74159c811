"""The rules of [trust], made of the configuration."""

from __future__ import annotations

from typing import Final

from modeld.config import ConfigError
from modeld.config.trust import TrustSettings
from modeld.signatures.rules import Rule, Rules
from modeld.sources.parse import parse
from modelwire.errors import InvalidRequest

_PLAIN: Final = "http://"
_ADDRESSES: Final = ("https://", _PLAIN)


def trust_rules(settings: TrustSettings) -> Rules:
    """Raises ConfigError for a pattern of addresses that a reference never has."""
    for rule in settings.require:
        for pattern in rule.references:
            _check_address(pattern)
    made = (Rule(number, rule.references, rule.keys, rule.roots) for number, rule in enumerate(settings.require, 1))
    return Rules(tuple(made))


def _check_address(pattern: str) -> None:
    """The pages of a hub have references of their own kind: by their address the pattern would match none of them."""
    if not pattern.startswith(_ADDRESSES):
        return
    address = f"https://{pattern.removeprefix(_PLAIN)}" if pattern.startswith(_PLAIN) else pattern
    try:
        reference = parse(address)
        fine = reference.text.startswith(_ADDRESSES)
    except InvalidRequest:
        fine = False
    if not fine:
        raise ConfigError(
            f"trust.require: references: no reference to a model is written {pattern!r:.120}",
            hint='Write the canonical spelling, which `modelctl show` has: "hf:org/*" for pages of Hugging Face.',
        )
