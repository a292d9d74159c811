"""One file by its address."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from modeld.download.content import check_type
from modeld.download.http.client import Answer, HttpClient
from modeld.download.source import Body, Description, FileInfo
from modeld.download.urls import Url
from modeld.sources import headers
from modeld.sources.credentials.netrc import netrc_authorization
from modeld.sources.references.types import WebReference
from modeld.store import parts
from modeld.store.digest import Digest

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_NOT_FOR_HEAD: Final = (400, 401, 403, 404, 405, 406, 501)
"""What servers answer to HEAD although GET works: they do not know it, or the signature is for GET alone."""


_SOME: Final = Digest("0" * 64)


class WebSource:
    """Credentials: those of the address, else those of ~/.netrc for its host; to its origin only."""

    name = "https"

    def __init__(self, http: HttpClient, environ: Mapping[str, str] | None = None) -> None:
        self._http = http
        self._environ = os.environ if environ is None else environ

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
                validator=headers.validator(told.headers),
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
