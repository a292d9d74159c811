"""All sources, made once for the daemon: which one a reference is for, and what a mirror of it is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping
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
    """`plain_hosts` are those that the configuration allows to be asked without encryption, loopback beside them."""

    def __init__(
        self, http: HttpClient, environ: Mapping[str, str] | None = None, *, plain_hosts: Collection[str] = ()
    ) -> None:
        self._setup = Setup(http, os.environ if environ is None else environ, plain_hosts)
        self._lock = threading.Lock()
        self._made: dict[tuple[str, ...], Source[Any]] = {}
        """Kept: the tokens of a registry are of its source. Beside one for each kind there are as many as the
        configuration names mirrors."""

    def read(self, text: str, directory: str | None = None) -> Reference:
        setup = self._setup
        return parse(text, directory=directory, environ=setup.environ, plain_hosts=setup.plain_hosts)

    def source(self, reference: Reference) -> Source[Any]:
        """Where the reference itself points."""
        kind = _BY_REFERENCE[type(reference)]
        if not isinstance(kind, NetworkKind):
            raise InvalidRequest(f"{reference.text} is on this machine, and comes from nowhere else")
        return self._once((kind.name,), lambda: kind.source(self._setup))

    def mirror(self, reference: Reference, match: str, url: str) -> Source[Any]:
        """The same reference at another endpoint: a hub, a registry or buckets at `url`; of an address, what follows
        `match` follows `url`. It gets no credentials."""
        kind = _BY_REFERENCE[type(reference)]
        if not isinstance(kind, NetworkKind):
            raise InvalidRequest(
                f"{reference.text} has no mirrors: only what comes over a network has them",
                hint="Correct `match` of the [[mirror]] in the configuration.",
            )
        return self._once((kind.name, match, url), lambda: kind.mirror(self._setup, match, url))

    def _once(self, place: tuple[str, ...], make: Callable[[], Source[Any]]) -> Source[Any]:
        with self._lock:
            found = self._made.get(place)
            if found is None:
                found = self._made[place] = make()
            return found
