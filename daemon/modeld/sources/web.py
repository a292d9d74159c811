"""One file by its address, whatever host that names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote, urlsplit

from modeld.download.content import check_type
from modeld.download.http import headers
from modeld.download.http.client import Answer, HttpClient
from modeld.download.source import Body, Description, FileInfo
from modeld.download.urls import Url
from modeld.observe.redact import redact_text
from modeld.sources.credentials.netrc import netrc_authorization
from modeld.sources.kind import NetworkKind
from modeld.sources.reference import NotAReference, Reference, Secrets, Written
from modeld.store import parts
from modeld.store.digest import Digest

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_NOT_FOR_HEAD: Final = (400, 401, 403, 404, 405, 406, 501)
"""What servers answer to HEAD although GET works: they do not know it, or the signature is for GET alone."""

_SOME: Final = Digest("0" * 64)

_SECRET_PARAMETER: Final = re.compile(
    r"(?:x-(?:amz|goog|ms|oss|cos)-.*|(?:.*[-_.])?(?:token|secret|password|passwd|pwd|passphrase|credentials?|signature"
    r"|auth|authorization|jwt|bearer|session|apikey|accesskey)|.*(?:api|access|private|secret|account)[-_]?key(?:[-_]?id)?"
    r"|key|sig|sign|hmac|code|sid|ticket|policy|key-pair-id|awsaccesskeyid|googleaccessid|ossaccesskeyid"
    r"|se|sp|sv|sr|st|spr|skoid|sktid|skt|ske|sks|skv|expires|user|username|login|__token__|hdnea|hdnts)",
    re.IGNORECASE,
)
"""Names of what signs an address or proves who asks; the two-letter ones are Azure's."""

_ANOTHER_HOST = re.compile(r"@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?::\d+)?/")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebReference(Reference):
    """One file by its address. `address` has no secrets; `full` is what is asked for."""

    address: str

    @property
    def text(self) -> str:
        return self.address

    @property
    def full(self) -> str:
        scheme, _, rest = self.address.partition("://")
        userinfo = "" if self.secrets.userinfo is None else f"{self.secrets.userinfo}@"
        if self.secrets.query is not None:
            rest = f"{rest.partition('?')[0]}?{self.secrets.query}"
        return f"{scheme}://{userinfo}{rest}"

    @property
    def name_hint(self) -> str:
        parts = urlsplit(self.address)
        return unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.hostname or ""

    @property
    def is_single(self) -> bool:
        return True

    @property
    def written_place(self) -> tuple[str, str]:
        parts = urlsplit(self.address)
        return parts.netloc, parts.path


def read(written: Written) -> WebReference | None:
    url = written.url
    if url is None:
        return None
    path, _, query = url.target.partition("?")
    public = _without_secrets(query)
    if _ANOTHER_HOST.search(path) or ("@" in path and redact_text(unquote(path)) != unquote(path)):
        # `https://user:pass/word@host/…`: what is in front of the slash was read as the host.
        raise NotAReference(
            "it looks as if a user and password were in its path; write `/` as %2F and `@` as %40", rule="address"
        )
    address = url.origin + path + (f"?{public}" if public else "")
    return WebReference(address=address, secrets=Secrets(url.userinfo, query if public != query else None))


def _without_secrets(query: str) -> str:
    return "&".join(each for each in query.split("&") if not _is_secret(each))


def _is_secret(parameter: str) -> bool:
    name = unquote(parameter.partition("=")[0])
    return _SECRET_PARAMETER.fullmatch(name) is not None or redact_text(unquote(f"?{parameter}")) != unquote(
        f"?{parameter}"
    )


class WebSource:
    """Credentials: those of the address, else those of ~/.netrc for its host; to its origin only."""

    name = "https"

    def __init__(self, http: HttpClient, environ: Mapping[str, str]) -> None:
        self._http = http
        self._environ = environ

    def origin(self, reference: WebReference) -> str:
        return self._http.parse(reference.full).origin

    def describe(self, reference: WebReference) -> Description:
        url = self._http.parse(reference.full)
        file = FileInfo(path=self._path(reference, None), locator=reference.full, origin=url.origin)
        answer = self._head(url)
        if answer is None:
            file = self._by_first_byte(file)
        else:
            told, first = answer
            file = replace(
                file,
                path=self._path(reference, headers.filename_of(told.headers)),
                size=headers.content_length(told.headers),
                validator=headers.validator_of(told.headers),
                ranges=(told.headers.get("Accept-Ranges") or "").strip().lower() != "none",
                digest=headers.digest_of(told.headers) or (headers.digest_of(first.headers) if first else None),
            )
            check_type(told.headers.get("Content-Type"), file, told.url.shown)
            if file.size is None:
                by_byte = self._by_first_byte(file)
                file = replace(file, size=by_byte.size, validator=by_byte.validator, ranges=by_byte.ranges)
        file = replace(file, role=parts.role_of(file.path))
        return Description(source=reference.text, files=(file,), registry=url.netloc, repo=url.target.partition("?")[0])

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:
        url = self._http.parse(file.locator)
        return self._http.open_range(url, file, start, end, validator, credentials=self._credentials(url))

    def _head(self, url: Url) -> tuple[Answer, Answer | None] | None:
        """The answer with the file, and the redirect that led there, when there was one: hubs put digests into it."""
        credentials = self._credentials(url)
        ok = (200, *_NOT_FOR_HEAD)
        answer = self._http.request("HEAD", url, credentials=credentials, redirects=False, ok=(*ok, *_REDIRECTS))
        first = None
        if answer.status in _REDIRECTS:
            first = answer
            answer = self._http.request("HEAD", url, credentials=credentials, ok=ok)
        return (answer, first) if answer.status == 200 else None

    def _by_first_byte(self, file: FileInfo) -> FileInfo:
        """For servers that do not know HEAD or do not tell the length: a range of one byte tells it."""
        # Whether an end that nobody announced can be told from a broken connection is asked when the file is opened
        # for its bytes: by then a digest may be known that this source has not heard of.
        body = self.open(replace(file, digest=_SOME), 0, 1, None)
        try:
            return replace(file, size=body.total, validator=body.validator, ranges=body.partial)
        finally:
            body.abort()
            body.close()

    def _credentials(self, url: Url) -> Mapping[str, str] | None:
        if url.userinfo is not None:
            return None  # the client takes them from the address
        found = netrc_authorization(url, self._environ)
        return None if found is None else {"Authorization": found}

    @staticmethod
    def _path(reference: WebReference, told: str | None) -> str:
        for name in (told, reference.name_hint):
            if name and parts.path_fault(name) is None and "/" not in name:
                return name
        return "model"


class WebMirror(WebSource):
    """Another place for addresses that begin alike: what follows the beginning is the same there. It gets no
    credentials: neither those of the address, nor a signed query, nor any of ~/.netrc."""

    def __init__(self, http: HttpClient, match: str, url: str) -> None:
        super().__init__(http, {"NETRC": os.devnull})
        self._match = match
        self._url = url

    def origin(self, reference: WebReference) -> str:
        return super().origin(self._there(reference))

    def describe(self, reference: WebReference) -> Description:
        return super().describe(self._there(reference))

    def _there(self, reference: WebReference) -> WebReference:
        return WebReference(address=self._url + reference.address.removeprefix(self._match))


KIND: Final = NetworkKind(
    name="https",
    reference=WebReference,
    forms=("https://host/path/model.gguf",),
    read=read,
    authorities=("https", "http"),
    source=lambda setup: WebSource(setup.http, setup.environ),
    mirror=lambda setup, match, url: WebMirror(setup.http, match, url),
)
