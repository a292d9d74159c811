"""References to what lies in a registry: `ollama:` and `oci://`."""

from __future__ import annotations

import re
from typing import Final

from modeld.sources.references.faults import bad_reference
from modeld.sources.references.types import (
    DEFAULT_TAG,
    NO_SECRETS,
    OLLAMA_HOST,
    OLLAMA_NAMESPACE,
    OciReference,
    OllamaReference,
    Secrets,
)
from modeld.store.digest import Digest
from modelwire.errors import InvalidDigest

_OLLAMA_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REPO = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
    r"|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
)
MAX_REPO: Final = 255


def ollama(text: str, rest: str) -> OllamaReference:
    """`rest` is what follows `ollama:`."""
    name, tag, digest = _version(text, rest.removeprefix("//"))
    given = name.split("/")
    if not 1 <= len(given) <= 3 or not all(given):
        raise bad_reference(text, "it is not name, namespace/name or host/namespace/name", rule="ollama")
    host = given[0].lower() if len(given) == 3 else OLLAMA_HOST
    repo = given[-2:] if len(given) > 1 else [OLLAMA_NAMESPACE, given[0]]
    if not _HOST.fullmatch(host) or not all(_OLLAMA_PART.fullmatch(part) and ".." not in part for part in repo):
        raise bad_reference(text, "it has characters that no model of a registry has in its name", rule="ollama")
    return OllamaReference(host=host, repo="/".join(repo), tag=tag, digest=digest)


def oci(text: str, rest: str) -> OciReference:
    """`rest` is what follows `oci:`."""
    if not rest.startswith("//"):
        raise bad_reference(text, "after oci: come two slashes and a host", rule="oci")
    authority, slash, path = rest[2:].partition("/")
    userinfo, at, host = authority.rpartition("@")
    host = host.lower()
    if not slash or not _HOST.fullmatch(host):
        raise bad_reference(text, "after oci:// come a host and a repository", rule="host")
    if not ("." in host or ":" in host or host == "localhost"):
        raise bad_reference(
            text, f"{host!r} is not the host of a registry", rule="host", hint=f"Perhaps oci://docker.io/{host}/…?"
        )
    name, tag, digest = _version(text, path)
    if not _REPO.fullmatch(name) or len(name) > MAX_REPO:
        raise bad_reference(
            text, "its repository is not small letters and digits, with `.`, `_`, `-` or `/` between", rule="oci"
        )
    return OciReference(
        host=host, repo=name, tag=tag, digest=digest, secrets=Secrets(userinfo) if at and userinfo else NO_SECRETS
    )


def _version(text: str, rest: str) -> tuple[str, str, Digest | None]:
    """Name, tag and digest of `name[:tag][@sha256:…]`. With a digest the tag says nothing."""
    name, at, digest = rest.partition("@")
    pinned = None
    if at:
        try:
            pinned = Digest.parse(digest if ":" in digest else f"?:{digest}")
        except InvalidDigest:
            raise bad_reference(
                text, "after @ comes sha256: and 64 hex digits, in small letters", rule="digest"
            ) from None
    directory, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise bad_reference(text, "its tag has other characters than letters, digits, `.`, `_` and `-`", rule="tag")
    return directory + slash + last, DEFAULT_TAG if pinned is not None or not tag else tag, pinned
