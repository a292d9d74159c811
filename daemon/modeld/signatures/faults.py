"""The ways in which a verification ends without success. Each has a `rule`, which programs read, and a sentence.

SignatureFault
    InvalidSignature     the signature does not hold
        FilesDiffer      it holds for other files than these
    Unverifiable         nothing is known: the bundle cannot be read, or asks for what is not supported
        Keyless          a transparency log has to confirm it
        MissingPackage   a package has to be installed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_MOST_NAMED: Final = 3
"""Paths in a sentence; the fault itself has them all."""


class SignatureFault(Exception):
    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class InvalidSignature(SignatureFault):
    """The signature does not hold for the signer that the caller trusts, or contradicts itself."""


class FilesDiffer(InvalidSignature):
    """The signature holds, and the files are not those that were signed. The rule is the first that has files."""

    def __init__(
        self,
        *,
        changed: Sequence[str] = (),
        renamed: Sequence[tuple[str, str]] = (),
        missing: Sequence[str] = (),
        unsigned: Sequence[str] = (),
    ) -> None:
        """`renamed` has pairs of the signed path and the present one, which neither `missing` nor `unsigned` has."""
        found = {
            "changed": [repr(path) for path in changed],
            "renamed": [f"{signed!r} as {present!r}" for signed, present in renamed],
            "missing": [repr(path) for path in missing],
            "unsigned": [repr(path) for path in unsigned],
        }
        reasons = [f"{rule}: {_some(named)}" for rule, named in found.items() if named]
        rule = next(rule for rule, named in found.items() if named)
        super().__init__(rule, f"the files are not those that were signed ({'; '.join(reasons)})")
        self.changed = tuple(changed)
        self.renamed = tuple(renamed)
        self.missing = tuple(missing)
        self.unsigned = tuple(unsigned)


def _some(named: Sequence[str]) -> str:
    more = len(named) - _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


class Unverifiable(SignatureFault):
    """Nothing is known of the signature: it may hold, or not."""


class Keyless(Unverifiable):
    def __init__(self) -> None:
        super().__init__(
            "keyless",
            "the model is signed with an identity instead of a lasting key (keyless, by sigstore); only the entry in"
            " the transparency log shows that its short-lived certificate was valid then, so it cannot be verified"
            " offline",
        )


class MissingPackage(Unverifiable):
    """The rule is the package's name."""
