"""Addresses: of files on the web, of pages that people paste from a browser, and of objects in a bucket."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import unquote, urlsplit

from modeld.download.urls import Url, parse_url
from modeld.observe.redact import redact_text
from modeld.sources.references.faults import bad_reference
from modeld.sources.references.types import NO_SECRETS, S3Reference, Secrets, WebReference
from modeld.store import parts

_SECRET_PARAMETER: Final = re.compile(
    r"(?:x-(?:amz|goog|ms|oss|cos)-.*|(?:.*[-_.])?(?:token|secret|password|passwd|pwd|passphrase|credentials?|signature"
    r"|auth|authorization|jwt|bearer|session|apikey|accesskey)|.*(?:api|access|private|secret|account)[-_]?key(?:[-_]?id)?"
    r"|key|sig|sign|hmac|code|sid|ticket|policy|key-pair-id|awsaccesskeyid|googleaccessid|ossaccesskeyid"
    r"|se|sp|sv|sr|st|spr|skoid|sktid|skt|ske|sks|skv|expires|user|username|login|__token__|hdnea|hdnts)",
    re.IGNORECASE,
)
"""Names of what signs an address or proves who asks; the two-letter ones are Azure's."""

_ANOTHER_HOST = re.compile(r"@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?::\d+)?/")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def web(text: str, url: Url) -> WebReference:
    """`url` is `text`, read."""
    path, _, query = url.target.partition("?")
    public = query_without_secrets(query)
    if _ANOTHER_HOST.search(path) or ("@" in path and redact_text(unquote(path)) != unquote(path)):
        # `https://user:pass/word@host/…`: what is in front of the slash was read as the host.
        raise bad_reference(
            text, "it looks as if a user and password were in its path; write `/` as %2F and `@` as %40", rule="address"
        )
    secrets = Secrets(url.userinfo, query if public != query else None)
    address = url.origin + path + (f"?{public}" if public else "")
    return WebReference(address=address, secrets=secrets if secrets else NO_SECRETS)


def read_address(text: str, plain_hosts: Collection[str]) -> Url:
    if not re.match(r"https?://[^/]", text, re.IGNORECASE):
        raise bad_reference(text, "the address has no host", rule="address")
    try:
        _ = urlsplit(text).port
    except ValueError:
        raise bad_reference(text, "its host or port cannot be read", rule="address") from None
    return parse_url(text, plain_hosts=plain_hosts)


def query_without_secrets(query: str) -> str:
    return "&".join(each for each in query.split("&") if not _is_secret(each))


def _is_secret(parameter: str) -> bool:
    name = unquote(parameter.partition("=")[0])
    return _SECRET_PARAMETER.fullmatch(name) is not None or redact_text(unquote(f"?{parameter}")) != unquote(
        f"?{parameter}"
    )


def s3(text: str, rest: str) -> S3Reference:
    """`rest` is what follows `s3:`."""
    if not rest.startswith("//"):
        raise bad_reference(text, "after s3: come two slashes and a bucket", rule="s3")
    if "?" in rest or "#" in rest:
        raise bad_reference(text, "it has a query, which a bucket's objects do not have", rule="s3")
    authority, _, path = rest[2:].partition("/")
    userinfo, at, bucket = authority.rpartition("@")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise bad_reference(text, "what follows s3:// is not the name of a bucket", rule="bucket")
    reason = parts.path_fault(path.removesuffix("/")) if path else None
    if reason is not None:
        raise bad_reference(text, f"its key cannot be the path of a file: {reason}", rule="path")
    return S3Reference(bucket=bucket, path=path, secrets=Secrets(userinfo) if at and userinfo else NO_SECRETS)
