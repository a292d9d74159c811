"""One run of the daemon over its open rooms: restore the jobs, serve, drain."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from math import inf

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import msgspec
import structlog

from modeld.access.handed import Descriptors
from modeld.app import root_user
from modeld.app.compose import Rooms
from modeld.app.interpreter import Pauses
from modeld.app.lifetime import Lifetime
from modeld.app.readiness import Readiness
from modeld.app.rest import Rest
from modeld.config.load import Loaded
from modeld.jobs.admission import Gate, Limits
from modeld.jobs.board import Board
from modeld.jobs.fair_turns import FairTurns
from modeld.jobs.restart import drain, restore
from modeld.observe import logs, notify
from modeld.observe.incident import incident
from modeld.operations import store_scrub
from modeld.operations.arriving import FETCHING, arriving
from modeld.operations.fetching import FETCHES
from modeld.operations.registry import all_operations
from modeld.operations.services import Services, ThisDaemon
from modeld.platform import accounts, clock
from modeld.pulls.refetching import Refetching
from modeld.server import Server
from modeld.server.peer_limits import PeerLimits
from modeld.store.blobs.hashing import slow_sha256
from modelwire.errors import WireError
from modelwire.requests import StoreScrub
from modelwire.values import Swept
from modelwire.version import __version__

log = structlog.get_logger("modeld.app")

_LAST_RECORDS_SECONDS = 3.0
"""For the last lines of the activity log and the last uses; a disk that hangs takes neither."""

_PRUNE_EVERY_SECONDS = 24 * 3600.0

_FIRST_SCRUB_SECONDS = 600.0
"""After the start, which has other work."""

_PLAN_SCRUB_SECONDS = 6 * 3600.0
"""Timers do not count the time of a suspended machine, and models come and go."""


async def serve(
    rooms: Rooms,
    loaded: Loaded,
    readiness: Readiness,
    output: logs.Output,
    pauses: Pauses,
    *,
    instance: str,
    auto_started: bool,
) -> int:
    """Serves until there is a reason to stop, and returns the exit code."""
    settings = loaded.settings
    lifetime = Lifetime(float(settings.daemon.drain_deadline), output.flush)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifetime.stop_on_signal, name="signals")
        await anyio.lowlevel.checkpoint()
        server, services = _built(rooms, loaded, lifetime, tasks, instance=instance, auto_started=auto_started)
        daemon = services.daemon
        resumed = await restore(services.board, rooms.ledger)
        daemon.recovery = msgspec.structs.replace(daemon.recovery, jobs_resumed=resumed)
        _announce(services, rooms)
        server.open()
        check_every = float(settings.daemon.endpoint_check)
        tasks.start_soon(lifetime.stop_on_lost_endpoint, rooms.endpoint, check_every, name="endpoint")
        tasks.start_soon(_prune, rooms, float(settings.jobs.keep), name="prune")
        tasks.start_soon(rooms.ledger.keep, name="ledger")
        tasks.start_soon(rooms.store.uses.keep, name="uses")
        tasks.start_soon(rooms.store.leases.keep, name="leases")
        tasks.start_soon(rooms.store.updates.keep, name="updates")
        tasks.start_soon(_sweep, services, name="sweep")
        if settings.scrub.every is not None:
            tasks.start_soon(_scrub, services, float(settings.scrub.every), name="scrub")
        fair_turns = FairTurns(services.board, time.monotonic, slowest=partial(_slowest_rate, services))
        tasks.start_soon(fair_turns.keep, name="fair turns")
        if auto_started and settings.daemon.idle_exit > 0:
            idle_exit = float(settings.daemon.idle_exit)
            sweep_in = rooms.store.automatic_sweep.next_in
            tasks.start_soon(lifetime.stop_when_idle, server, services.board, idle_exit, sweep_in, name="idle")
        loop = asyncio.get_running_loop()
        services.board.runner.on_end = Rest(services.board, rooms.catalog, loop, pauses).job_ended
        readiness.ready(rooms.endpoint.path, rooms.store.layout.root)
        await lifetime.until_stop()
        notify.stopping(lifetime.reason)
        await _stop(services, server, lifetime)
        lifetime.end_in_time()
        with anyio.move_on_after(_LAST_RECORDS_SECONDS):
            await rooms.activity.flush()
            await rooms.store.uses.flush()
        tasks.cancel_scope.cancel()
    return lifetime.exit_code


def _built(
    rooms: Rooms,
    loaded: Loaded,
    lifetime: Lifetime,
    tasks: anyio.abc.TaskGroup,
    *,
    instance: str,
    auto_started: bool,
) -> tuple[Server, Services]:
    settings = loaded.settings
    limits = Limits(
        waiting_total=settings.limits.waiting_total,
        waiting_per_peer=settings.limits.waiting_per_peer,
        running={FETCHES: settings.limits.running_fetches},
        running_default=settings.limits.running_bytes,
        ageing=float(settings.jobs.ageing),
    )
    gate = Gate(limits, time.monotonic, first_order=rooms.ledger.next_order_now())
    warnings = (
        *rooms.access.warnings,
        *rooms.lending.warnings,
        *rooms.warnings,
        *filter(None, (slow_sha256(), root_user.warning(os.getuid()))),
    )
    for warning in warnings:
        log.warning(warning)
    peer_limits = PeerLimits(
        connections_per_peer=settings.limits.connections_per_peer,
        requests_per_peer=settings.limits.requests_per_peer,
        user_of=rooms.access.user_of,
    )
    services = Services(
        settings=settings,
        store=rooms.store,
        board=Board(
            gate,
            rooms.ledger,
            rooms.activity,
            tasks,
            make_room=rooms.store.reserve.release,
            trusted=lambda uid: uid in (os.getuid(), accounts.ROOT),
            user_of=rooms.access.user_of,
        ),
        gate=gate,
        activity=rooms.activity,
        pulls=rooms.pulls,
        refetching=Refetching(rooms.pulls),
        machine=rooms.machine,
        daemon=ThisDaemon(
            server=f"modeld/{__version__}",
            instance=instance,
            socket=rooms.endpoint.path,
            started=time.time(),
            auto_started=auto_started,
            recovery=rooms.recovery,
            presence=peer_limits,
            warnings=warnings,
        ),
        drain=lambda deadline: lifetime.stop("a client asked for it", deadline=deadline),
        own_uid=os.getuid(),
        accounts=rooms.accounts,
        access=rooms.access,
        lending=rooms.lending,
        handed=Descriptors(user_of=rooms.access.user_of),
    )
    rooms.store.scrubber.background.busy = partial(gate.runs_beside, str(StoreScrub.__struct_config__.tag))
    rooms.store.models.arriving = partial(arriving, services.board)
    rooms.store.models.failed_fetches = partial(rooms.ledger.failed_last, FETCHING)
    rooms.store.holds.register(partials=lambda: rooms.pulls.job_partials.of(job.id for job in services.board.jobs))
    operations = all_operations(services)
    server = Server(rooms.endpoint.socket, services, operations, peer_limits, rooms.access, tasks)
    return server, services


def _slowest_rate(services: Services) -> float:
    """Of a download that keeps its slot while others wait: no more than half of what the bandwidth budget leaves to
    each."""
    budget = services.pulls.transfer.budget.rate or inf
    return min(services.settings.limits.min_rate, budget / services.gate.limits.running_of(FETCHES) / 2)


def _announce(services: Services, rooms: Rooms) -> None:
    found = {name: value for name, value in msgspec.to_builtins(services.daemon.recovery).items() if value}
    services.activity.record("daemon.started", pid=os.getpid(), version=__version__, **found)
    log.info("ready", socket=rooms.endpoint.path, store=rooms.store.layout.root, pid=os.getpid(), **found)


async def _stop(services: Services, server: Server, lifetime: Lifetime) -> None:
    services.daemon.state = "draining"
    services.activity.record("daemon.stopping", reason=lifetime.reason)
    await drain(services.board, lifetime.deadline)
    services.activity.record("daemon.stopped", reason=lifetime.reason)
    await server.end_connections()


async def _sweep(services: Services) -> None:
    """Frees what nothing has held for the grace period."""

    async def swept(found: Swept) -> None:
        services.activity.record(
            "store.swept", removed=found.removed, freed_bytes=found.freed_bytes, notes=found.notes or None
        )
        await anyio.to_thread.run_sync(services.store.reserve.refill)

    while services.store.automatic_sweep.on:
        try:
            await services.store.automatic_sweep.keep(swept)
        except Exception as error:  # noqa: BLE001 - a fault here must not end the daemon
            incident(error, work="sweeping")
            await anyio.sleep(_PRUNE_EVERY_SECONDS)


async def _scrub(services: Services, every: float) -> None:
    """Begins a scrub when a blob is due. While none is, it wakes for a look at what is new."""
    if (job := store_scrub.own_scrub(services)) is not None:  # the last run began it
        await store_scrub.until_ended(services, job)
    await anyio.sleep(_FIRST_SCRUB_SECONDS)
    while not services.board.draining:
        try:
            seconds = await store_scrub.until_due(services, every)
            if seconds > 0:
                await anyio.sleep(min(seconds, _PLAN_SCRUB_SECONDS))
                continue
            await store_scrub.scrub_what_is_due(services)
        except WireError as error:
            # The root is away, the queue is full, or the daemon stops.
            log.warning("cannot scrub now", error=error.message)
            await anyio.sleep(_FIRST_SCRUB_SECONDS)
        except Exception as error:  # noqa: BLE001 - a fault here must not end the daemon
            incident(error, work="scrubbing")
            await anyio.sleep(_PLAN_SCRUB_SECONDS)


async def _prune(rooms: Rooms, keep: float) -> None:
    """Deletes old finished jobs, what pulls have learned, and the history of models that are gone, once a day."""
    calendar = clock.Calendar()
    while True:
        try:
            now = calendar()
            await rooms.ledger.prune(now, keep)
            await rooms.pulls.memory.prune(now, keep)
            await rooms.pulls.job_partials.prune(now, keep)
            await rooms.store.prune(now - keep)
        except WireError as error:
            # A full disk, most likely: the next day is early enough.
            log.warning("cannot delete old jobs and old history", error=error.message)
        except Exception as error:  # noqa: BLE001 - a fault here must not end the daemon
            incident(error, work="deleting old jobs")
        await anyio.sleep(_PRUNE_EVERY_SECONDS)
