"""What all pulls of the daemon share: sources, downloads, memory and settings."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from ipaddress import ip_network
from typing import Any

from modeld.config import Settings
from modeld.download.engine.downloads import Transfer
from modeld.download.http.client import HttpClient
from modeld.download.http.reach import Reach
from modeld.download.routes.router import Route
from modeld.download.tuning import DEFAULT
from modeld.pulls.job_partials import JobPartials
from modeld.pulls.memory import Memory
from modeld.pulls.shared_downloads import SharedDownloads
from modeld.sources.kind import For
from modeld.sources.reference import Reference
from modeld.sources.sources import Sources
from modeld.store import Store
from modeld.store.catalog.catalog import Catalog
from modelwire.errors import Offline


class PullContext:
    """One for the daemon. `close` it at the end."""

    def __init__(self, store: Store, catalog: Catalog, settings: Settings, environ: Mapping[str, str]) -> None:
        self.store = store
        self.settings = settings
        self.memory = Memory(catalog)
        self.job_partials = JobPartials(catalog, store.layout)
        self.shared_downloads = SharedDownloads(store.ingest)
        self._environ = dict(environ)
        self._closing = ExitStack()
        chosen = settings.transfer
        self.max_rate_at_start = None if chosen.max_rate is None else int(chosen.max_rate)
        """Of all downloads together, in bytes a second. A plain int: the wire encodes no subclass."""

        self.transfer = Transfer(
            store.layout,
            store.ingest.space,
            max_rate=self.max_rate_at_start,
            keep_cache=store.ingest.keep_cache,
            condemned=self.memory.condemned,
            holds=store.holds,
            tuning=replace(
                DEFAULT,
                connections_per_file=chosen.connections_per_file,
                connections_per_host=chosen.connections_per_host,
            ),
        )

    def close(self) -> None:
        self._closing.close()

    @cached_property
    def sources(self) -> Sources:
        """Made at its first use: a bad proxy in the environment then fails pulls and nothing else."""
        plain_hosts = self.settings.transfer.plain_hosts
        http = HttpClient(environ=self._environ, plain_hosts=plain_hosts)
        self._closing.callback(http.close)
        reach = Reach([ip_network(each) for each in self.settings.access.networks])
        for_others = HttpClient(environ=self._environ, plain_hosts=plain_hosts, reach=reach)
        self._closing.callback(for_others.close)
        return Sources(http, self._environ, plain_hosts=plain_hosts, for_others=for_others)

    def route(self, reference: Reference, user: For) -> Route[Any]:
        """The mirrors that match, in their configured order, then the reference's own source."""
        mirrors = [
            self.sources.mirror(reference, mirror.match, mirror.url, user)
            for mirror in self.settings.mirror
            if reference.text.startswith(mirror.match)
        ]
        return Route(reference, [*mirrors, self.sources.source(reference, user)])

    def offline_fault(self, reference: Reference) -> Offline:
        configured = self.settings.transfer.offline
        return Offline(
            f"{reference.text} is not in the store, and no connection may be opened",
            hint="Set offline = false in [transfer] of the configuration, or add the file from disk."
            if configured
            else "Pull it without `offline`, or add the file from disk.",
            details={"reference": reference.text},
        )
