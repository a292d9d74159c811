"""Parses the text of a reference, without touching the disk or the network.

Every wrong text raises InvalidRequest, which lists the forms of all kinds and repeats nothing that may be secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from modeld.observe.redact import redact_text
from modeld.sources.kinds import KINDS
from modeld.sources.reference import NotAReference, Reference, Written
from modelwire.errors import InvalidRequest

MAX_REFERENCE: Final = 8 * 1024
"""Signed addresses have up to 4 KiB; servers accept a request line of 8 KiB."""

_FORMS: Final = [form for kind in KINDS for form in kind.forms]
_HINT: Final = "Write one of: " + "; ".join(_FORMS) + "."
_SITES: Final = tuple(f"{site}/" for kind in KINDS for site in kind.sites)
_AUTHORITIES: Final = frozenset(scheme for kind in KINDS for scheme in kind.authorities)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)


def parse(
    text: str,
    *,
    directory: str | None = None,
    environ: Mapping[str, str] | None = None,
    plain_hosts: Collection[str] = (),
) -> Reference:
    """`directory` is where relative paths start: the client's, not the daemon's. `environ` is the daemon's, which may
    name a hub of the user's own."""
    raw, text = text, text.strip()
    try:
        if not text:
            raise NotAReference("it is empty", rule="empty")
        if len(text) > MAX_REFERENCE:
            raise NotAReference(f"it is longer than {MAX_REFERENCE} characters", rule="too_long")
        if any(character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in text):
            raise NotAReference("it has control characters, or bytes that are not UTF-8", rule="character")
        if text.lower().startswith(_SITES):
            text = f"https://{text}"
        found = _SCHEME.fullmatch(text)
        scheme, rest = (found[1].lower(), found[2]) if found is not None else ("", text)
        written = Written(
            raw=raw,
            text=text,
            scheme=scheme,
            rest=rest,
            directory=directory,
            environ=environ or {},
            plain_hosts=plain_hosts,
        )
        for kind in KINDS:
            reference = kind.read(written)
            if reference is not None:
                return reference
        raise NotAReference("its scheme is unknown", rule="scheme")
    except NotAReference as fault:
        raise InvalidRequest(
            f"{shown('…' if fault.rule == 'character' else text)} is not a reference to a model: {fault.reason}",
            hint=_HINT if fault.hint is None else f"{fault.hint} {_HINT}",
            details={"rule": fault.rule, "accepted": list(_FORMS)},
        ) from None


def shown(text: str) -> str:
    """The text for an error: up to its query, without user, password and anything that looks like a token."""
    text = re.split(r"[?#]", text[:MAX_REFERENCE], maxsplit=1)[0]
    scheme, colon, rest = text.partition(":")
    before, pin, digest = rest.partition("@sha256:")
    if "@" in before and (before.startswith("/") or scheme.lower() in _AUTHORITIES):
        # Up to the last `@`: a password that was not encoded may contain `@` and `/`.
        text = f"{scheme}{colon}//…@{before.rpartition('@')[2]}{pin}{digest}"
    text = redact_text(text)
    return ascii(text) if len(text) <= 120 else ascii(text[:120]) + "…"
