"""What the headers of an answer say about a file: its digest, size, version and name. Also one header of requests."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote

from modeld.download.source import WEAK
from modeld.store.digest import Digest
from modelwire.errors import InvalidDigest

_HEX: Final = re.compile(r'(?:W/)?"?(?:sha256:)?([0-9a-f]{64})"?')
_HEADERS_WITH_HEX: Final = (
    "X-Linked-Etag",
    "X-Checksum-Sha256",
    "X-Sha256",
    "X-Content-Sha256",
    "Docker-Content-Digest",
)
"""Of hubs, artifact servers and registries. A plain ETag is not among them: its 64 digits may be of anything."""

_REPRESENTATION: Final = re.compile(r"sha-256\s*=\s*:([A-Za-z0-9+/=]+):")
_INSTANCE: Final = re.compile(r"sha-256\s*=\s*([A-Za-z0-9+/=]+)", re.IGNORECASE)
_ETAG = re.compile(r'(?P<weak>W/)?"[\x21\x23-\x7e\x80-\xff]+"')
"""More strictly than HTTP: an empty one is the same for all versions."""

_DATE = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT")
_STRONG_AFTER: Final = 1.0
"""Seconds between Last-Modified and Date. When an answer is as old as its file, the file may change once more within
the same second, and keep its date (RFC 9110, 8.8.2.2)."""

_FILENAME = re.compile(r"filename\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^;\s]+))", re.IGNORECASE)
_EXTENDED = re.compile(r"filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)
_LINK = re.compile(r'<([^<>]*)>((?:\s*;\s*[^;,<>"=\s]+(?:\s*=\s*(?:"[^"]*"|[^;,<>"\s]+))?)*)')
_NEXT = re.compile(r';\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next(?=[\s;]|$))', re.IGNORECASE)


def digest_of(headers: Mapping[str, str]) -> Digest | None:
    """A SHA-256 of the whole file, when a header vouches for one. That of the content sent (Content-Digest) is not."""
    for name in _HEADERS_WITH_HEX:
        found = _HEX.fullmatch((headers.get(name) or "").strip())
        if found is not None:
            return Digest(found[1])
    return _of_base64(_REPRESENTATION.search(headers.get("Repr-Digest") or "")) or _of_base64(
        _INSTANCE.search(headers.get("Digest") or "")
    )


def content_length(headers: Mapping[str, str]) -> int | None:
    """None when the answer is encoded: then it is the length of something else."""
    if (headers.get("Content-Encoding") or "identity").strip().lower() not in ("identity", ""):
        return None
    return number(headers.get("Content-Length"))


def validator_of(headers: Mapping[str, str]) -> str | None:
    """The version of the file, as `strong` of `download.source` reads it: a strong ETag, else a date that no other
    version can have, else with `W/` in front what two versions may share."""
    etag, date = (headers.get("ETag") or "").strip(), (headers.get("Last-Modified") or "").strip()
    tag = _ETAG.fullmatch(etag)
    if tag is not None and tag["weak"] is None:
        return etag
    age = _seconds_between(date, (headers.get("Date") or "").strip())
    if age is not None and age >= _STRONG_AFTER:
        return date
    return etag if tag is not None else f"{WEAK}{date}" if date else None


def _seconds_between(earlier: str, later: str) -> float | None:
    """None when one of them is no date. Of the three forms of HTTP, only the one that servers may send is read."""
    if not (_DATE.fullmatch(earlier) and _DATE.fullmatch(later)):
        return None
    try:
        return (parsedate_to_datetime(later) - parsedate_to_datetime(earlier)).total_seconds()
    except ValueError:
        return None


def number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def filename_of(headers: Mapping[str, str]) -> str | None:
    """The last part of the name that Content-Disposition gives; what it may be is judged elsewhere."""
    text = headers.get("Content-Disposition") or ""
    extended = _EXTENDED.search(text)
    if extended is not None:
        name = unquote(extended[1], errors="replace")
    else:
        plain = _FILENAME.search(text)
        if plain is None:
            return None
        name = re.sub(r"\\(.)", r"\1", plain[1]) if plain[1] is not None else plain[2]
    return re.split(r"[/\\]", name)[-1].strip() or None


def next_page(headers: Mapping[str, str]) -> str | None:
    """The address of rel="next" in a Link header."""
    for address, parameters in _LINK.findall(headers.get("Link") or ""):
        if _NEXT.search(parameters):
            return str(address)
    return None


def _of_base64(found: re.Match[str] | None) -> Digest | None:
    if found is None:
        return None
    try:
        return Digest(base64.b64decode(found[1], validate=True).hex())
    except (binascii.Error, ValueError, InvalidDigest):
        return None


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
