"""The sources of the daemon: finds, and makes once, the source of a reference and those of its mirrors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from modeld.download.http.client import HttpClient
from modeld.download.source import Source
from modeld.sources.kind import For, Kind, NetworkKind, Setup
from modeld.sources.kinds import KINDS
from modeld.sources.parse import parse
from modeld.sources.reference import Reference
from modelwire.errors import InvalidRequest

_BY_REFERENCE: Mapping[type[Reference], Kind] = {kind.reference: kind for kind in KINDS}


class Sources:
    """The configuration allows plain HTTP to `plain_hosts`; loopback is always allowed."""

    def __init__(
        self,
        http: HttpClient,
        environ: Mapping[str, str] | None = None,
        *,
        plain_hosts: Collection[str] = (),
        for_others: HttpClient | None = None,
    ) -> None:
        """`for_others` connects only where pulls of users other than the daemon's own may go."""
        self._setup = Setup(http, os.environ if environ is None else environ, plain_hosts)
        self._for_others = for_others
        self._lock = threading.Lock()
        self._made: dict[tuple[str | For, ...], Source[Any]] = {}
        """Kept, because a source holds the tokens of its registry. One for each kind or mirror, and each kind
        of user."""

    def read(self, text: str, directory: str | None = None) -> Reference:
        setup = self._setup
        return parse(text, directory=directory, environ=setup.environ, plain_hosts=setup.plain_hosts)

    def source(self, reference: Reference, user: For) -> Source[Any]:
        """The source of the place that the reference names."""
        kind = _BY_REFERENCE[type(reference)]
        if not isinstance(kind, NetworkKind):
            raise InvalidRequest(f"{reference.text} is on this machine and has no source")
        return self._once((kind.name, user), lambda: kind.source(self._setup_for(user)))

    def mirror(self, reference: Reference, match: str, url: str, user: For) -> Source[Any]:
        """The source of the same reference at another endpoint: a hub, a registry or buckets at `url`; for an address,
        `url` replaces `match`. It gets no credentials."""
        kind = _BY_REFERENCE[type(reference)]
        if not isinstance(kind, NetworkKind):
            raise InvalidRequest(
                f"{reference.text} has no mirrors: only references to a network have them",
                hint="Correct `match` of the [[mirror]] in the configuration.",
            )
        user = user._replace(lends=False)
        return self._once((kind.name, match, url, user), lambda: kind.mirror(self._setup_for(user), match, url))

    def _setup_for(self, user: For) -> Setup:
        if user.anywhere:
            return replace(self._setup, lends=user.lends)
        assert self._for_others is not None
        return replace(self._setup, http=self._for_others, lends=user.lends)

    def _once(self, place: tuple[str | For, ...], make: Callable[[], Source[Any]]) -> Source[Any]:
        with self._lock:
            found = self._made.get(place)
            if found is None:
                found = self._made[place] = make()
            return found
