"""The table [trust]: which models get a name only with a signature, and whose."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

KINDS: Final = ("hf:", "ollama:", "oci://", "s3://", "https://", "http://", "local:/", "*")
"""How a pattern begins. With any other beginning it would match no reference, and so require nothing."""

MOST_RULES: Final = 1_000
"""A publication compares each spelling of each of its files with every pattern."""


class TrustRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signature by one of these signers is required of the models whose references match."""

    references: tuple[str, ...]
    keys: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.references:
            raise ValueError('references: expected at least one pattern, such as "hf:org/*"')
        for pattern in self.references:
            if not pattern.startswith(KINDS):
                raise ValueError(f"references: expected a beginning of {', '.join(KINDS)}, got {pattern!r:.80}")
            if pattern != pattern.strip() or not pattern.isprintable():
                raise ValueError(f"references: expected no space around it and no control character, got {pattern!r}")
        if not self.keys and not self.roots:
            raise ValueError("keys, roots: expected at least one file of a public key or of root certificates")
        for path in (*self.keys, *self.roots):
            if not path.startswith("/") or "\0" in path:
                raise ValueError(f"keys, roots: expected absolute paths, got {path!r:.80}")


class TrustSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    require: Annotated[
        tuple[TrustRule, ...],
        Meta(
            description="models that get a name only with a signature by one of these keys or roots (PEM files); the"
            ' first rule that matches counts; written as [[trust.require]] with references = ["hf:org/*"],'
            ' keys = ["/path/key.pem"] and roots = ["/path/root.pem"]'
        ),
    ] = ()

    def __post_init__(self) -> None:
        if len(self.require) > MOST_RULES:
            raise ValueError(f"require: expected at most {MOST_RULES} rules, got {len(self.require)}")
