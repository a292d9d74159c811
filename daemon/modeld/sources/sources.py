"""The sources of the daemon: finds, and makes once, the source of a reference and those of its mirrors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from modeld.download.http.client import HttpClient
from modeld.download.source import Source
from modeld.sources.kind import Kind, NetworkKind, Setup
from modeld.sources.kinds import KINDS
from modeld.sources.parse import parse
from modeld.sources.reference import Reference
from modelwire.errors import InvalidRequest

_BY_REFERENCE: Mapping[type[Reference], Kind] = {kind.reference: kind for kind in KINDS}


class Sources:
    """The configuration allows plain HTTP to `plain_hosts`; loopback is always allowed."""

    def __init__(
        self, http: HttpClient, environ: Mapping[str, str] | None = None, *, plain_hosts: Collection[str] = ()
    ) -> None:
        self._setup = Setup(http, os.environ if environ is None else environ, plain_hosts)
        self._setup_without = replace(self._setup, lends=False)
        self._lock = threading.Lock()
        self._made: dict[tuple[str, ...], Source[Any]] = {}
        """Kept, because a source holds the tokens of its registry. At most two for each kind, and one for each
        mirror."""

    def read(self, text: str, directory: str | None = None) -> Reference:
        setup = self._setup
        return parse(text, directory=directory, environ=setup.environ, plain_hosts=setup.plain_hosts)

    def source(self, reference: Reference, *, lends: bool) -> Source[Any]:
        """The source of the place that the reference names; with `lends`, the one that may use the credentials of the
        daemon's user."""
        kind = _BY_REFERENCE[type(reference)]
        if not isinstance(kind, NetworkKind):
            raise InvalidRequest(f"{reference.text} is on this machine and has no source")
        setup = self._setup if lends else self._setup_without
        return self._once((kind.name, "lends" if lends else ""), lambda: kind.source(setup))

    def mirror(self, reference: Reference, match: str, url: str) -> Source[Any]:
        """The source of the same reference at another endpoint: a hub, a registry or buckets at `url`; for an address,
        `url` replaces `match`. It gets no credentials."""
        kind = _BY_REFERENCE[type(reference)]
        if not isinstance(kind, NetworkKind):
            raise InvalidRequest(
                f"{reference.text} has no mirrors: only references to a network have them",
                hint="Correct `match` of the [[mirror]] in the configuration.",
            )
        return self._once((kind.name, match, url), lambda: kind.mirror(self._setup, match, url))

    def _once(self, place: tuple[str, ...], make: Callable[[], Source[Any]]) -> Source[Any]:
        with self._lock:
            found = self._made.get(place)
            if found is None:
                found = self._made[place] = make()
            return found
