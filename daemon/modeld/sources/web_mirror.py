"""Another place for addresses that begin alike: what follows the beginning is the same there."""

from __future__ import annotations

import os
from dataclasses import replace

from modeld.download.http.client import HttpClient
from modeld.download.source import Body, Description, FileInfo
from modeld.sources.references.types import NO_SECRETS, WebReference
from modeld.sources.web import WebSource


class WebMirror:
    """Gets no credentials: neither those of the address, nor a signed query, nor any of ~/.netrc."""

    name = "https"

    def __init__(self, http: HttpClient, match: str, url: str) -> None:
        self._web = WebSource(http, {"NETRC": os.devnull})
        self._match = match
        self._url = url

    def origin(self, reference: WebReference) -> str:
        return self._web.origin(self._there(reference))

    def describe(self, reference: WebReference) -> Description:
        return self._web.describe(self._there(reference))

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:
        return self._web.open(file, start, end, validator)

    def _there(self, reference: WebReference) -> WebReference:
        address = self._url + reference.address.removeprefix(self._match)
        return replace(reference, address=address, secrets=NO_SECRETS)
