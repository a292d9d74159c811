"""One file by its http or https address, on any host; by that of one shard, the set."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from modeld.download.content import check_type
from modeld.download.http import headers
from modeld.download.http.client import Answer, HttpClient
from modeld.download.source import Body, Description, FileInfo, strong
from modeld.download.urls import Url
from modeld.observe.redact import redact_text
from modeld.sources.credentials.netrc import netrc_authorization
from modeld.sources.kind import NetworkKind
from modeld.sources.reference import NotAReference, Reference, Secrets, Written
from modeld.store import parts
from modeld.store.digest import Digest
from modelwire.errors import SourceNotFound, SourceUnauthorized

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_NOT_FOR_HEAD: Final = (400, 401, 403, 404, 405, 406, 501)
"""Answers to HEAD from servers where GET may work: they lack HEAD, or the signature is for GET alone."""

_ANY_DIGEST: Final = Digest("0" * 64)

_SECRET_PARAMETER: Final = re.compile(
    r"(?:x-(?:amz|goog|ms|oss|cos)-.*|(?:.*[-_.])?(?:token|secret|password|passwd|pwd|passphrase|credentials?|signature"
    r"|auth|authorization|jwt|bearer|session|apikey|accesskey)|.*(?:api|access|private|secret|account)[-_]?key(?:[-_]?id)?"
    r"|key|sig|sign|hmac|code|sid|ticket|policy|key-pair-id|awsaccesskeyid|googleaccessid|ossaccesskeyid"
    r"|se|sp|sv|sr|st|spr|skoid|sktid|skt|ske|sks|skv|expires|user|username|login|__token__|hdnea|hdnts)",
    re.IGNORECASE,
)
"""Names of parameters that sign an address or authenticate the client; the two-letter ones are Azure's."""

_NO_NETRC: Final = {"NETRC": os.devnull}

_ANOTHER_HOST = re.compile(r"@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?::\d+)?/")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebReference(Reference):
    """`address` has no secrets; `full`, which is requested, has them."""

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
        address = urlsplit(self.address)
        return unquote(address.path.rstrip("/").rpartition("/")[2]) or address.hostname or ""

    @property
    def shards(self) -> list[str] | None:
        """The names of all files, when this is the address of one of a set of GGUF shards."""
        return parts.gguf_shards(self.name_hint)

    def shard(self, name: str) -> WebReference:
        """The address of another shard: it has the same query, secrets included."""
        path, mark, query = self.address.partition("?")
        return replace(self, address=f"{path.rpartition('/')[0]}/{quote(name)}{mark}{query}")

    @property
    def is_single(self) -> bool:
        return self.shards is None

    def spellings(self, paths: Sequence[str]) -> tuple[str, ...]:
        """With and without the query, and as a server may take it that decodes the path, once or twice, and leaves out
        `.`, `..` and empty parts."""
        addresses = [self.address, *(self.shard(path).address for path in paths if self.shards is not None)]
        found = dict.fromkeys(addresses)
        for address in addresses:
            plain = address.partition("?")[0]
            parts_of = urlsplit(plain)
            decoded = [parts_of.path, unquote(parts_of.path), unquote(unquote(parts_of.path))]
            for path in decoded:
                short = posixpath.normpath(f"/{path.replace(chr(92), '/')}").lstrip("/")
                found[f"{parts_of.scheme}://{parts_of.netloc}/{short}"] = None
            found[plain] = None
        return tuple(found)

    @property
    def signatures(self) -> tuple[WebReference, ...]:
        """None where a secret query was made for this address alone."""
        if self.secrets.query is not None:
            return ()
        path, mark, query = self.address.partition("?")
        nearest = [replace(self, address=f"{path}.sig{mark}{query}")] if self.is_single else []
        return (*nearest, self.shard("model.sig"))


def read(written: Written) -> WebReference | None:
    url = written.url
    if url is None:
        return None
    path, _, query = url.target.partition("?")
    public = _without_secrets(query)
    if _ANOTHER_HOST.search(path) or ("@" in path and redact_text(unquote(path)) != unquote(path)):
        # `https://user:pass/word@host/…`: the part before the slash was parsed as the host.
        raise NotAReference(
            "its path seems to hold a user and password; in these, write `/` as %2F and `@` as %40", rule="address"
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
    """Uses the credentials of the address, else those of ~/.netrc for its host; sends them to its origin only."""

    name = "https"

    def __init__(self, http: HttpClient, environ: Mapping[str, str]) -> None:
        self._http = http
        self._environ = environ

    def origin(self, reference: WebReference) -> str:
        return self._http.parse(reference.full).origin

    def describe(self, reference: WebReference) -> Description:
        url, names = self._http.parse(reference.full), reference.shards
        files = [self._file(reference)] if names is None else [self._shard(reference, name) for name in names]
        return Description(
            source=reference.text, files=tuple(files), registry=url.netloc, repo=url.target.partition("?")[0]
        )

    def _shard(self, reference: WebReference, name: str) -> FileInfo:
        if name == reference.name_hint:
            return replace(self._file(reference), path=name)
        try:
            return replace(self._file(reference.shard(name)), path=name)
        except (SourceNotFound, SourceUnauthorized) as fault:
            raise type(fault)(
                f"{reference.text} is one part of a set, and the part {name} cannot be had: {fault.message}",
                hint=fault.hint,
                details=fault.details,
            ) from None

    def _file(self, reference: WebReference) -> FileInfo:
        url = self._http.parse(reference.full)
        file = FileInfo(
            path=self._path(reference, None), locator=reference.full, origin=url.origin, address=reference.address
        )
        answer = self._head(url)
        if answer is None:
            file = self._by_first_byte(file)
        else:
            final, redirect = answer
            file = replace(
                file,
                path=self._path(reference, headers.filename_of(final.headers)),
                size=headers.content_length(final.headers),
                validator=strong(headers.validator_of(final.headers)),
                ranges=(final.headers.get("Accept-Ranges") or "").strip().lower() != "none",
                digest=headers.digest_of(final.headers) or (headers.digest_of(redirect.headers) if redirect else None),
            )
            check_type(final.headers.get("Content-Type"), file, final.url.shown)
            if file.size is None:
                by_byte = self._by_first_byte(file)
                file = replace(file, size=by_byte.size, validator=by_byte.validator, ranges=by_byte.ranges)
        return replace(file, role=parts.role_of(file.path))

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:
        url = self._http.parse(file.locator)
        return self._http.open_range(url, file, start, end, validator, credentials=self._credentials(url))

    def _head(self, url: Url) -> tuple[Answer, Answer | None] | None:
        """The final answer, and the first redirect if there was one: hubs put digests into its headers."""
        credentials = self._credentials(url)
        ok = (200, *_NOT_FOR_HEAD)
        answer = self._http.request("HEAD", url, credentials=credentials, redirects=False, ok=(*ok, *_REDIRECTS))
        redirect = None
        if answer.status in _REDIRECTS:
            redirect = answer
            answer = self._http.request("HEAD", url, credentials=credentials, ok=ok)
        return (answer, redirect) if answer.status == 200 else None

    def _by_first_byte(self, file: FileInfo) -> FileInfo:
        """Size and validator from a range of one byte, for servers that lack HEAD or do not report the length in it."""
        # Without a length and a digest, an end looks like a broken connection, and opening the file is refused. Any
        # digest prevents that here: when the bytes are read, the pull may know one that this source does not.
        body = self.open(replace(file, digest=_ANY_DIGEST), 0, 1, None)
        try:
            return replace(file, size=body.total, validator=strong(body.validator), ranges=body.partial)
        finally:
            body.abort()
            body.close()

    def _credentials(self, url: Url) -> Mapping[str, str] | None:
        if url.userinfo is not None:
            return None  # the client takes them from the address
        found = netrc_authorization(url, self._environ)
        return None if found is None else {"Authorization": found}

    @staticmethod
    def _path(reference: WebReference, filename: str | None) -> str:
        for name in (filename, reference.name_hint):
            if name and parts.path_fault(name) is None and "/" not in name:
                return name
        return "model"


class WebMirror(WebSource):
    """Another place for the addresses that begin with `match`: `url` replaces that beginning. It gets no credentials:
    neither those of the address, nor a signed query, nor those of ~/.netrc."""

    def __init__(self, http: HttpClient, match: str, url: str) -> None:
        super().__init__(http, _NO_NETRC)
        self._match = match
        self._url = url

    def origin(self, reference: WebReference) -> str:
        return super().origin(self._mirrored(reference))

    def describe(self, reference: WebReference) -> Description:
        return super().describe(self._mirrored(reference))

    def _mirrored(self, reference: WebReference) -> WebReference:
        return WebReference(address=self._url + reference.address.removeprefix(self._match))


KIND: Final = NetworkKind(
    name="https",
    reference=WebReference,
    forms=("https://host/path/model.gguf",),
    read=read,
    authorities=("https", "http"),
    source=lambda setup: WebSource(setup.http, setup.environ if setup.lends else _NO_NETRC),
    mirror=lambda setup, match, url: WebMirror(setup.http, match, url),
)
