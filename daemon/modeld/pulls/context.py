"""What all pulls of the daemon share: the sources, the downloads, the memory and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from modeld.config import Settings
from modeld.download.engine.downloads import Transfer
from modeld.download.http.client import HttpClient
from modeld.download.routes.router import Route
from modeld.download.tuning import DEFAULT
from modeld.pulls.memory import Memory
from modeld.pulls.shared_downloads import SharedDownloads
from modeld.sources.reference import Reference
from modeld.sources.sources import Sources
from modeld.store import Store
from modeld.store.catalog.catalog import Catalog
from modelwire.errors import Offline
from modelwire.units import Size


@dataclass(frozen=True)
class PullContext:
    """Whoever opens it closes it."""

    store: Store
    settings: Settings
    memory: Memory
    transfer: Transfer
    shared_downloads: SharedDownloads
    _environ: Mapping[str, str]

    @classmethod
    def open(cls, store: Store, catalog: Catalog, settings: Settings, environ: Mapping[str, str]) -> PullContext:
        memory = Memory(catalog)
        chosen = settings.transfer
        tuning = replace(
            DEFAULT,
            first_connections=min(DEFAULT.first_connections, chosen.connections_per_file),
            connections_per_file=chosen.connections_per_file,
            connections_per_host=chosen.connections_per_host,
            files_at_once=chosen.files_at_once,
        )
        transfer = Transfer(
            store.layout,
            store.ingest.space,
            max_rate=_plain(chosen.max_rate),
            keep_cache=store.ingest.keep_cache,
            condemned=memory.condemned,
            tuning=tuning,
        )
        return cls(store, settings, memory, transfer, SharedDownloads(store.ingest), dict(environ))

    def close(self) -> None:
        if "_http" in self.__dict__:
            self._http.close()

    @property
    def max_rate_at_start(self) -> int | None:
        """Over all downloads, as it is configured."""
        return _plain(self.settings.transfer.max_rate)

    @cached_property
    def _http(self) -> HttpClient:
        return HttpClient(environ=self._environ, plain_hosts=self.settings.transfer.plain_hosts)

    @cached_property
    def _sources(self) -> Sources:
        """Made when it is first used: a bad proxy in the environment is an error of pulls, and of nothing else."""
        return Sources(self._http, self._environ, plain_hosts=self.settings.transfer.plain_hosts)

    def read(self, text: str, directory: str | None = None) -> Reference:
        return self._sources.read(text, directory)

    def route(self, reference: Reference) -> Route[Any]:
        """Mirrors that match, in the order in which they are configured, then where the reference points itself."""
        mirrors = [
            self._sources.mirror(reference, mirror.match, mirror.url)
            for mirror in self.settings.mirror
            if reference.text.startswith(mirror.match)
        ]
        return Route(reference, [*mirrors, self._sources.source(reference)])

    def refuse_offline(self, reference: Reference) -> Offline:
        configured = self.settings.transfer.offline
        return Offline(
            f"{reference.text} is not in the store, and no connection may be opened",
            hint="allow it with offline = false in [transfer] of the configuration, or add the file from disk"
            if configured
            else "pull it without `offline`, or add the file from disk",
            details={"reference": reference.text},
        )


def _plain(size: Size | None) -> int | None:
    """A number that can be told over the wire."""
    return None if size is None else int(size)
