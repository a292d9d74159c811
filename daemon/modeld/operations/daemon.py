"""daemon.*: what goes on here, what this daemon speaks, and stopping it in good order."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import Counter

from modeld.jobs.job import timestamp
from modeld.operations.calling import Caller, Handlers
from modeld.operations.house import House
from modelwire import limits, requests, schema
from modelwire.errors import InvalidRequest, WireError
from modelwire.values import Description, Drained, HostView, QueueView, Status, TransferView

_LONGEST_DEADLINE = 3600.0

_HOSTS_SHOWN = 100
"""More have no meaning for a reader; a status stays a small answer."""


def handlers(house: House) -> Handlers:
    counted = 0

    def count() -> int:
        """Whoever asks how the daemon is gets an answer, above all when the store cannot be read just now."""
        nonlocal counted
        with contextlib.suppress(WireError):
            counted = house.store.models.count()
        return counted

    def free() -> int | None:
        with contextlib.suppress(WireError):
            return house.store.free_bytes
        return None

    def status(_: Caller, __: requests.DaemonStatus) -> Status:
        now = time.time()
        return Status(
            state=house.state,
            server=house.server,
            instance=house.instance,
            pid=os.getpid(),
            store=house.store.layout.root,
            socket=house.socket,
            started_at=timestamp(house.started),
            uptime_s=round(now - house.started, 3),
            connections=house.presence.count,
            watchers=house.activity.watchers,
            models=count(),
            queue=_queue(house),
            log=house.activity.view(),
            recovery=house.recovery,
            transfer=_transfer(house),
            free_bytes=free(),
            reserved_bytes=house.store.reserved_bytes,
            auto_started=house.auto_started,
            peers=house.presence.by_peer(),
        )

    def describe(_: Caller, __: requests.DaemonDescribe) -> Description:
        return Description(
            protocol=limits.PROTOCOL_MAX, operations=schema.operations(), schema={"$defs": schema.definitions()}
        )

    def drain(_: Caller, request: requests.DaemonDrain) -> Drained:
        wanted = request.deadline_s
        if wanted is not None and not (math.isfinite(wanted) and 0 <= wanted <= _LONGEST_DEADLINE):
            raise InvalidRequest(
                f"$.deadline_s: {wanted} is not between 0 and {_LONGEST_DEADLINE:g}",
                hint="leave it out for the deadline that is configured",
            )
        queue = _queue(house)
        return Drained(running=queue.running, waiting=queue.waiting, deadline_s=house.drain(wanted))

    return Handlers(
        quick={
            requests.DaemonStatus: status,
            requests.DaemonDescribe: describe,
            requests.DaemonDrain: drain,
        },
        long={},
    )


def _transfer(house: House) -> TransferView | None:
    """Only when there is something to tell."""
    view = TransferView(
        max_rate=house.workshop.transfer.budget.rate,
        max_rate_at_start=house.workshop.max_rate_at_start,
        hosts=_hosts(house),
    )
    return None if view == TransferView() else view


def _hosts(house: House) -> tuple[HostView, ...]:
    """Those in trouble first: on a busy daemon not all may be told."""
    transfer = house.workshop.transfer
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


def _queue(house: House) -> QueueView:
    now = house.gate.snapshot()
    by_priority, by_kind = Counter[str](), Counter[str]()
    for job in house.board.jobs:
        if job.state == "queued":
            by_priority[str(job.priority)] += 1
        elif job.state == "running":
            by_kind[job.kind] += 1
    return QueueView(
        waiting=now.waiting,
        running=now.running,
        capacity=now.waiting_limit,
        by_priority=dict(by_priority),
        running_by_kind=dict(by_kind),
    )
