"""The transfer as the rest of the daemon sees it: ask, then fetch; what is fetched waits to be committed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from modeld.download.engine.assembly import Fetched, Ground
from modeld.download.engine.budget import Budget, Pace
from modeld.download.engine.fetching import Fetching
from modeld.download.routes.breaker import Breakers
from modeld.download.routes.condemned import Condemned
from modeld.download.routes.events import OnEvent, unheard
from modeld.download.routes.hosts import Hosts
from modeld.download.routes.outcomes import Net
from modeld.download.routes.router import Described, Route, Router
from modeld.download.source import FileInfo
from modeld.download.tuning import DEFAULT, Tuning
from modeld.progress import FileProgress
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space

R = TypeVar("R")


class Transfer:
    """One for the daemon: budget, breakers and per-host limits are counted over all of its jobs. Its methods block."""

    def __init__(
        self,
        layout: Layout,
        space: Space,
        *,
        max_rate: int | None = None,
        keep_cache: bool = False,
        condemned: Condemned | None = None,
        tuning: Tuning = DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = Budget(max_rate)
        self.breakers = Breakers(clock, tuning.breaker_seconds)
        self.hosts = Hosts(tuning.connections_per_host)
        self.condemned = condemned or Condemned()
        self._ground = Ground(layout=layout, space=space, tuning=tuning, keep_cache=keep_cache)
        self._net = Net(breakers=self.breakers, hosts=self.hosts, tuning=tuning, clock=clock)
        self._router = Router(self._net)

    def ask(
        self, route: Route[R], *, stopped: Callable[[], bool] = lambda: False, on_event: OnEvent = unheard
    ) -> Described[R]:
        """What the reference means now. Its thread may be left to itself: a silent host blocks it for long."""
        return self._router.describe(route, stopped=stopped, on_event=on_event)

    def fetch_file(
        self,
        described: Described[R],
        file: FileInfo,
        *,
        expected: Digest | None = None,
        pace: Pace | None = None,
        progress: FileProgress | None = None,
        on_event: OnEvent = unheard,
    ) -> Fetched:
        """Blocks until the file is whole, verified and durable. `expected` is stronger than what a source says."""
        followed = progress or FileProgress()
        with self._ground.buffers.in_use():
            return Fetching(
                self._ground,
                self._net,
                self.condemned,
                described.offers(file.path, followed.stopped),
                alternatives=described.alternatives + 1,
                expected=expected,
                pace=pace or self.budget.share(),
                progress=followed,
                on_event=on_event,
            ).run()
