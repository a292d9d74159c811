"""All sources, made once for the daemon: which one a reference is for, and what a mirror of it is."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from typing import Any

from modeld.download.http.client import HttpClient
from modeld.download.source import Source
from modeld.sources.huggingface import HuggingFaceSource
from modeld.sources.images import ImageSource
from modeld.sources.references.types import (
    HubReference,
    OciReference,
    OllamaReference,
    Reference,
    S3Reference,
    WebReference,
)
from modeld.sources.s3 import S3Source
from modeld.sources.web import WebSource
from modeld.sources.web_mirror import WebMirror
from modelwire.errors import InvalidRequest


class Sources:
    """`plain_hosts` are those that the configuration allows to be asked without encryption, loopback beside them."""

    def __init__(
        self, http: HttpClient, environ: Mapping[str, str] | None = None, *, plain_hosts: Collection[str] = ()
    ) -> None:
        known = os.environ if environ is None else environ
        self._http = http
        self._environ = known
        self._plain_hosts = plain_hosts
        self._web = WebSource(http, known)
        self._hub = HuggingFaceSource.from_environ(http, known)
        self._oci = ImageSource(http, environ=known, plain_hosts=plain_hosts)
        self._ollama = ImageSource(http, name="ollama", environ=known, plain_hosts=plain_hosts)
        self._s3 = S3Source(http, known)
        self._lock = threading.Lock()
        self._mirrors: dict[tuple[type, str, str], Source[Any]] = {}
        """Kept: the tokens of a registry are of its source. There are as many as the configuration names."""

    @property
    def hubs(self) -> frozenset[str]:
        """For `references.parse`: the origins whose addresses are those of a hub."""
        return frozenset({self._hub.endpoint_origin})

    def source(self, reference: Reference) -> Source[Any]:
        """Where the reference itself points."""
        match reference:
            case WebReference():
                return self._web
            case HubReference():
                return self._hub
            case OllamaReference():
                return self._ollama
            case OciReference():
                return self._oci
            case S3Reference():
                return self._s3
        raise InvalidRequest(f"{reference.text} is on this machine, and comes from nowhere else")

    def mirror(self, reference: Reference, match: str, url: str) -> Source[Any]:
        """The same reference at another endpoint: a hub, a registry or buckets at `url`; of an address, what follows
        `match` follows `url`. It gets no credentials."""
        place = (type(reference), match, url)
        with self._lock:
            found = self._mirrors.get(place)
            if found is None:
                found = self._mirrors[place] = self._made(reference, match, url)
            return found

    def _made(self, reference: Reference, match: str, url: str) -> Source[Any]:
        match reference:
            case HubReference():
                return HuggingFaceSource(self._http, url, environ=self._environ)
            case OllamaReference():
                return ImageSource(self._http, name="ollama", plain_hosts=self._plain_hosts, base=url)
            case OciReference():
                return ImageSource(self._http, plain_hosts=self._plain_hosts, base=url)
            case S3Reference():
                return S3Source.mirror(self._http, url)
            case WebReference():
                return WebMirror(self._http, match, url)
        raise InvalidRequest(
            f"{reference.text} has no mirrors: only what comes over a network has them",
            hint="Correct `match` of the [[mirror]] in the configuration.",
        )
