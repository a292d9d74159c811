"""The entry of this room: describe a reference, then fetch its files; the caller commits what was fetched."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from modeld.download.engine.assembly import Fetched, Workspace
from modeld.download.engine.budget import Budget, Pace
from modeld.download.engine.fetching import Fetching
from modeld.download.routes.breaker import Breakers
from modeld.download.routes.condemned import Condemned
from modeld.download.routes.events import OnEvent, unheard
from modeld.download.routes.hosts import Hosts
from modeld.download.routes.outcomes import Network
from modeld.download.routes.router import Described, Router
from modeld.download.source import FileInfo
from modeld.download.tuning import DEFAULT, Tuning
from modeld.progress import FileProgress
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.publish.holds import Holds

R = TypeVar("R")


class Transfer:
    """One for the daemon: budget, breakers and limits per host count over all of its jobs. Its methods block."""

    def __init__(
        self,
        layout: Layout,
        space: Space,
        *,
        max_rate: int | None = None,
        keep_cache: bool = False,
        condemned: Condemned | None = None,
        holds: Holds | None = None,
        tuning: Tuning = DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = Budget(max_rate)
        self.breakers = Breakers(clock, tuning.breaker_seconds)
        self.hosts = Hosts(tuning.connections_per_host)
        self.condemned = condemned or Condemned()
        self._workspace = Workspace(
            layout=layout, space=space, tuning=tuning, keep_cache=keep_cache, holds=holds or Holds()
        )
        self._network = Network(breakers=self.breakers, hosts=self.hosts, tuning=tuning, clock=clock)
        self.router = Router(self._network)

    def fetch_file(
        self,
        described: Described[R],
        file: FileInfo,
        *,
        expected: Digest | None = None,
        space: Space | None = None,
        pace: Pace | None = None,
        progress: FileProgress | None = None,
        on_event: OnEvent = unheard,
    ) -> Fetched:
        """Blocks until the file is whole, verified and durable. `expected` overrides the digest of the description,
        `space` is where its bytes are reserved: by default that of all."""
        reported = progress or FileProgress()
        with self._workspace.buffers.in_use():
            return Fetching(
                self._workspace,
                space or self._workspace.space,
                self._network,
                self.condemned,
                described.offers(file.path, reported.stopped),
                alternatives=described.alternatives + 1,
                expected=expected,
                pace=pace or self.budget.share(),
                progress=reported,
                on_event=on_event,
            ).run()
