"""The rules of [trust]: for which references a signature is required, and by whom.

A pattern is a glob over the whole of a reference: `*` matches any characters, `/` among them, `?` one, `[ab]` one of
these. The case of letters, their composition and percent-encoding do not count, nor does `http://` instead of
`https://`: what a source may take for the same must not pass by another spelling. A rule that matches too much refuses;
one that matches too little lets in.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import translate
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote

from modeld.signatures.faults import InvalidSignature, SignatureFault, Unverifiable
from modeld.signatures.verification import SignedModel, TrustedKey, TrustedRoots, check_signer, signed_model

MAX_PEM: Final = 192 * 1024
"""Bytes of a key, or of roots: as many as a request may bring to verify a signature."""


_IPV6: Final = re.compile(r"^(https?://)\[(?=[0-9a-f:.]+\])")
"""The bracket before such a host is no wildcard."""

_By = Literal["key", "certificate"]


class Signed(NamedTuple):
    model: SignedModel
    by: _By


class Untrustworthy(SignatureFault):
    """No signer of the rule has signed it. The rule of the fault is that of the last signer, `reasons` has all."""

    def __init__(self, faults: Sequence[tuple[str, SignatureFault]]) -> None:
        self.reasons = [f"{path}: {fault}" for path, fault in faults]
        # A key that cannot be read says less than one by which the signature does not hold.
        shown = next((fault for _path, fault in faults if isinstance(fault, InvalidSignature)), faults[-1][1])
        super().__init__(shown.rule, "; ".join(self.reasons))


class Rule:
    """`number` counts the rules of the configuration from 1."""

    def __init__(self, number: int, references: Sequence[str], keys: Sequence[str], roots: Sequence[str]) -> None:
        self.number = number
        self.references = tuple(references)
        self.keys = tuple(keys)
        self.roots = tuple(roots)
        # A pattern may be written in either way too: with `%20`, or with a space.
        spelled = {folded(each) for pattern in references for each in (pattern, unquote(pattern))}
        self._patterns = [re.compile(translate(_IPV6.sub(r"\1[[]", pattern))) for pattern in sorted(spelled)]

    def __str__(self) -> str:
        return f"rule {self.number} of [[trust.require]], {', '.join(map(repr, self.references))}"

    def fits(self, texts: Iterable[str]) -> bool:
        return any(pattern.match(text) for text in texts for pattern in self._patterns)

    def signed(self, bundle: bytes) -> Signed:
        """What one of the signers has signed. Raises Untrustworthy. The files of the signers are read each time: a key
        that was taken away counts no more."""
        faults: list[tuple[str, SignatureFault]] = []
        for path, by in self._signers():
            try:
                return Signed(signed_model(bundle, _trusted(path, by)), by)
            except SignatureFault as fault:
                faults.append((path, fault))
        raise Untrustworthy(faults)

    def faults(self) -> Iterator[str]:
        """Why signers of this rule cannot be asked. Blocks."""
        for path, by in self._signers():
            try:
                check_signer(_trusted(path, by))
            except SignatureFault as fault:
                yield f"{self}: {path} verifies no signature: {fault}"

    def _signers(self) -> Iterator[tuple[str, _By]]:
        yield from ((path, "key") for path in self.keys)
        yield from ((path, "certificate") for path in self.roots)


class Rules:
    """In the order of the configuration. Falsy when there are none."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules = tuple(rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def matching(self, spellings: Iterable[str]) -> Rule | None:
        """The first rule that one of these spellings of a reference matches."""
        if not self._rules:
            return None
        texts = {folded(each) for text in spellings for each in (text, unquote(text, errors="surrogateescape"))}
        return next((rule for rule in self._rules if rule.fits(texts)), None)

    def faults(self) -> tuple[str, ...]:
        """Warnings of signers that cannot be asked. Blocks."""
        return tuple(fault for rule in self._rules for fault in rule.faults())


def folded(text: str) -> str:
    """Equal for spellings that count as one."""
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return f"https://{plain.removeprefix('http://')}" if plain.startswith("http://") else plain


def _trusted(path: str, by: _By) -> TrustedKey | TrustedRoots:
    pem = _read(path)
    return TrustedKey(pem) if by == "key" else TrustedRoots(pem, datetime.now(UTC))


def _read(path: str) -> bytes:
    """A regular file that not every user of the machine may write to."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Unverifiable("signer", "it is no regular file")
            if status.st_mode & stat.S_IWOTH:
                raise Unverifiable("signer", "every user of this machine may write to it (chmod o-w)")
            data = file.read(MAX_PEM + 1)
    except OSError as error:
        raise Unverifiable("signer", f"it cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MAX_PEM:
        raise Unverifiable("signer", f"it has more than {MAX_PEM} bytes")
    return data
