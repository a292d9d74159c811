"""daemon.status: the state of the daemon, its queue, its log and its transfers."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

from modeld.jobs.job import timestamp
from modeld.operations.operation import Call, SlowOperation
from modeld.operations.services import Services
from modeld.operations.store_move import move_view
from modeld.operations.store_scrub import scrub_view
from modeld.platform import clock
from modelwire.errors import WireError
from modelwire.requests import DaemonStatus
from modelwire.values import HostView, QueueView, Status, TransferView

_PATIENCE_SECONDS = 0.05
"""A disk that works answers within a millisecond."""

_HOSTS_SHOWN = 100
"""More are of no use to a reader; a status stays a small reply."""


class ShowStatus(SlowOperation[DaemonStatus, Status]):
    """Answers also while the store cannot be read, or its disk hangs: that is when a status matters most."""

    request, value = DaemonStatus, Status
    is_lookup = True

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._free_bytes: int | None = None
        self._thread = ThreadPoolExecutor(1, "status")
        self._looking: Future[None] | None = None

    async def run(self, _: Call, __: DaemonStatus, /) -> Status:
        await self._look_again()
        services, daemon = self._services, self._services.daemon
        return Status(
            state=daemon.state,
            server=daemon.server,
            instance=daemon.instance,
            pid=os.getpid(),
            store=services.store.layout.root,
            socket=daemon.socket,
            started_at=timestamp(daemon.started),
            uptime_s=round(clock.elapsed() - daemon.began, 3),
            connections=daemon.presence.count,
            watchers=services.activity.watchers,
            models=services.store.index.count,
            queue=queue_view(services),
            log=services.activity.view(),
            recovery=daemon.recovery,
            transfer=_transfer(services),
            sweep=services.store.automatic_sweep.view(),
            scrub=scrub_view(services),
            move=move_view(services),
            free_bytes=self._free_bytes,
            reserved_bytes=services.store.reserved_bytes,
            auto_started=daemon.auto_started,
            peers=daemon.presence.by_peer(),
            warnings=daemon.warnings,
        )

    async def _look_again(self) -> None:
        """Waits for the figures of the disk, for `_PATIENCE_SECONDS` at most. While a look hangs, the last figures are
        reported at once."""
        if self._looking is None or self._looking.done():
            self._looking = self._thread.submit(self._look)
            await asyncio.wait([asyncio.wrap_future(self._looking)], timeout=_PATIENCE_SECONDS)

    def _look(self) -> None:
        store = self._services.store
        with contextlib.suppress(WireError):
            store.index.names()
        try:
            self._free_bytes = store.free_bytes
        except WireError:
            self._free_bytes = None


def _transfer(services: Services) -> TransferView | None:
    """None when there is nothing to report."""
    view = TransferView(
        max_rate=services.pulls.transfer.budget.rate,
        max_rate_at_start=services.pulls.max_rate_at_start,
        hosts=_hosts(services),
    )
    return None if view == TransferView() else view


def _hosts(services: Services) -> tuple[HostView, ...]:
    """Hosts in trouble first: a busy daemon may have more than are shown."""
    transfer = services.pulls.transfer
    connections = transfer.hosts.open_connections()
    views = []
    for host, trouble in transfer.breakers.troubles().items():
        views.append(
            HostView(
                host=host,
                connections=connections.pop(host, 0),
                breaker="open" if trouble.state == "open" else "half-open",
                since=timestamp(trouble.since),
                next_probe_s=round(trouble.wait, 1),
                probing=trouble.probing,
            )
        )
    views.sort(key=lambda view: view.since or "", reverse=True)
    views += [HostView(host=host, connections=count) for host, count in sorted(connections.items())]
    return tuple(views[:_HOSTS_SHOWN])


def queue_view(services: Services) -> QueueView:
    now = services.gate.snapshot()
    by_priority, by_kind = Counter[str](), Counter[str]()
    for job in services.board.jobs:
        if job.state == "queued":
            by_priority[str(job.priority)] += 1
        elif job.state == "running":
            by_kind[job.kind.name] += 1
    return QueueView(
        waiting=now.waiting,
        running=now.running,
        capacity=now.waiting_limit,
        by_priority=dict(by_priority),
        running_by_kind=dict(by_kind),
    )
