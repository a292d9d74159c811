"""Removes secrets from values before they are encoded, so that the line on the disk is always whole JSON.

Redacting the encoded line, as is often done, misses what encoding changes (a quote becomes `\\"`, so
`"token":"x"` inside a message is no longer recognised) and can cut a line in the middle of an escape.
Here every string is redacted by itself, at any depth, and so is every value under a secret's name.

Where a rule cannot distinguish a secret from its surroundings, it removes too much: a shorter log line
does no harm.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

MARK = "***"
"""Not matched by any rule in a way that changes it: redacting twice is redacting once."""

MAX_TEXT = 8192
"""Error messages of tools are shorter. Longer ones are cut, because watchers get the line too."""

MAX_DEPTH = 16

_CUT = 64
"""Removed from the end of a text that was cut: it may be the first half of a secret."""

_PASSES = 8
"""Two are usual, three occurred in a hundred thousand generated texts; a text that needs more is removed as a whole."""

_NAMES = (
    r"tokens?|passwords?|passwd|passphrase|pwd|secrets?|(?:secret|private|api|access)[-_ ]?keys?|access[-_]?key[-_]?id"
    r"|credentials?|signature"
)

# A value, when nothing is known of its shape: quoted as it was opened (also when the quote itself is
# escaped, as in JSON within JSON; to the end of the text when it is never closed), or a list or an
# object and all that follows, or up to the next space, quote or `&`.
_QUOTED = r"(?P<quote>\\*[\"'])(?:.*?(?<!\\)(?P=quote)|.*)|[\[{].*"
_BARE = r"(?:(?:bearer|basic|token)[ \t]+)?[^\s\"'&<>]+"
_IS = r"(?:\\*[\"'])?[ \t]{0,8}(?:=>|[=:]|%3d)[ \t]{0,8}"

_RULES: tuple[tuple[re.Pattern[str], str | None], ...] = (
    # First, because it spans lines, and a later rule might remove only the first one.
    (re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)", re.S), MARK),
    # Headers: everything up to the end of the line.
    (re.compile(rf"(?P<name>authorization|cookie)(?P<is>{_IS})(?:{_QUOTED}|\S[^\r\n]*)", re.I | re.S), None),
    (re.compile(rf"(?P<name>{_NAMES})(?P<is>{_IS})(?:{_QUOTED}|{_BARE})", re.I | re.S), None),
    (re.compile(r"\b(bearer(?:[ \t]+|%20))(?!(?:tokens?|auth\w*)\b)[^\s\"'<>]+", re.I), rf"\1{MARK}"),
    # "Basic" is also a word: what follows must look like base64 of something.
    (
        re.compile(r"\b([Bb]asic|BASIC)([ \t]+)(?=\S*(?:[0-9=+/]|[a-z][A-Z]))[A-Za-z0-9+/_-]{6,}=*"),
        rf"\1\2{MARK}",
    ),
    # User and password in a URL. A password may hold an unescaped "@": up to the last one.
    (re.compile(r"(?<=://)[^/?#\s\"'<>]*@"), rf"{MARK}@"),
    # Query parameters with names too short to search for elsewhere; `%26` and `%3d` are those of a URL
    # within a URL.
    (
        re.compile(
            r"((?:[?&;]|%3f|%26)(?:sig|sign|auth|key|code|jwt|hmac|session|sid|policy|key-pair-id|awsaccesskeyid"
            r"|googleaccessid)(?:=|%3d))[^&#\s\"'<>]+",
            re.I,
        ),
        rf"\1{MARK}",
    ),
    # Known shapes of tokens, anywhere.
    (
        re.compile(
            r"(?<![A-Za-z0-9])(?:"
            r"hf_(?:[A-Za-z0-9]{16,}|(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{8,})"
            r"|github_pat_\w{8,}|gh[pousr]_[A-Za-z0-9]{8,}|glpat-[\w-]{8,}"
            r"|sk-(?:proj|ant|svcacct|admin|or)-[\w-]{6,}|sk-(?=[\w-]{0,64}[0-9])[\w-]{16,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{12,}|AIza[\w-]{30,}|xox[abeoprs]-[\w-]{8,}|nvapi-[\w-]{8,}"
            r"|eyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?"
            r")"
        ),
        MARK,
    ),
)

# Each rule matches only texts with one of these, in lower case. Most strings of a record are ids, digests and
# paths, which have none: this search takes 1 µs, one by pattern takes 10.
_TRACES = (
    *("token", "passw", "passphrase", "pwd", "secret", "key", "credential", "signature", "authorization", "cookie"),
    *("bearer", "basic", "://", "=", "%3d", "hf_", "github_pat_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "glpat-"),
    *("sk-", "akia", "asia", "aiza", "xox", "nvapi-", "eyj"),
)

_LONGEST_NAME = 64

_SECRET_NAME = re.compile(
    r"(?:token|password|passwd|passphrase|pwd|secret|secretkey|privatekey|apikey|accesskey|accesskeyid|authorization"
    r"|cookie|credential|signature|jwt|bearer)(?P<plural>s?)\Z"
)
_NOT_ALNUM = re.compile(r"[^a-z0-9]+")


def redact_text(text: str) -> str:
    """The text without the secrets in it."""
    cut = len(text) > MAX_TEXT
    if cut:
        text = text[:MAX_TEXT]
    if not text.isascii():
        # A path that is not UTF-8 comes as lone surrogates, which no encoder takes.
        text = text.encode("utf-8", "backslashreplace").decode()
    if _suspect(text.lower()):
        text = _without_secrets(text)
    if cut:
        text = text[: MAX_TEXT - _CUT] + "…"
    return text


def _without_secrets(text: str) -> str:
    """Repeats the rules until nothing changes: a mark can uncover the beginning of a secret right behind another."""
    for _ in range(_PASSES):
        before = text
        for pattern, replacement in _RULES:
            text = pattern.sub(_keep_name if replacement is None else replacement, text)
        if text == before:
            return text
    return MARK


def _suspect(small: str) -> bool:
    for trace in _TRACES:  # noqa: SIM110 - any() over a generator takes twice as long
        if trace in small:
            return True
    return False


def redact(value: Any, depth: int = 0) -> Any:
    """A copy of the value, without secrets and without types that JSON lacks."""
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < 1 << 64 else str(value)
    if depth >= MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        return {(name := _key(key)): _under(name, item, depth) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, depth + 1) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, msgspec.Struct):
        return redact(msgspec.structs.asdict(value), depth)
    return redact_text(str(value))


def _key(key: object) -> str:
    text = key if isinstance(key, str) else str(key)
    return _known_key(text) if len(text) <= _LONGEST_NAME else redact_text(text)


def _under(name: str, value: Any, depth: int) -> Any:
    kind = _secret_kind(name) if len(name) <= _LONGEST_NAME else ""
    if not kind or value is None:
        return redact(value, depth + 1)
    if kind == "many" and isinstance(value, int | float):
        return value  # a count: "tokens": 17
    return MARK


_known_key = lru_cache(maxsize=512)(redact_text)
"""Cached, because every record has the same field names."""


@lru_cache(maxsize=512)
def _secret_kind(name: str) -> str:
    found = _SECRET_NAME.search(_NOT_ALNUM.sub("", name.lower()))
    if found is None:
        return ""
    return "many" if found["plural"] else "one"


def _keep_name(found: re.Match[str]) -> str:
    quote = found["quote"] or ""
    return f"{found['name']}{found['is']}{quote}{MARK}{quote}"
