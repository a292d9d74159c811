"""One run of the daemon, from open rooms to closed ones: restore, serve, drain."""

from __future__ import annotations

import os
import time
from functools import partial

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
import structlog

from modeld.app.compose import Rooms
from modeld.app.lifetime import Lifetime
from modeld.app.readiness import Readiness
from modeld.config.load import Loaded
from modeld.jobs.admission import Gate, Limits
from modeld.jobs.board import Board
from modeld.jobs.restart import drain, restore
from modeld.observe import notify
from modeld.observe.incident import incident
from modeld.operations import House, all_handlers
from modeld.operations.pull import FETCHES
from modeld.server import Server
from modelwire.errors import WireError
from modelwire.version import __version__

log = structlog.get_logger("modeld.app")

_FREEING = frozenset({"model.remove", "store.sweep"})

_PRUNE_EVERY_SECONDS = 24 * 3600.0


async def serve(rooms: Rooms, loaded: Loaded, readiness: Readiness, *, instance: str, auto_started: bool) -> int:
    """Runs until there is a reason to stop; the exit code."""
    settings = loaded.settings
    lifetime = Lifetime(float(settings.daemon.drain_deadline))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifetime.mind_signals, name="signals")
        await anyio.lowlevel.checkpoint()
        server, house = _built(rooms, loaded, lifetime, tasks, instance=instance, auto_started=auto_started)
        resumed = await restore(house.board, rooms.ledger, house.board.runner.took_place)
        house.recovery = msgspec.structs.replace(house.recovery, jobs_resumed=resumed)
        _announce(house, rooms)
        server.open()
        tasks.start_soon(lifetime.mind_endpoint, rooms.endpoint, float(settings.daemon.endpoint_check), name="endpoint")
        tasks.start_soon(_prune, rooms, float(settings.jobs.keep), name="prune")
        tasks.start_soon(rooms.store.care.uses.keep, name="uses")
        if auto_started and settings.daemon.idle_exit > 0:
            patience = float(settings.daemon.idle_exit)
            tasks.start_soon(lifetime.mind_idleness, server, house.board, patience, name="idleness")
        readiness.ready(rooms.endpoint.path, rooms.store.layout.root)
        await lifetime.until_stop()
        notify.stopping(lifetime.reason)
        await _stop(house, server, lifetime)
        await rooms.activity.flush()
        await rooms.store.care.uses.flush()
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
) -> tuple[Server, House]:
    settings = loaded.settings
    limits = Limits(
        waiting_total=settings.limits.waiting_total,
        waiting_per_peer=settings.limits.waiting_per_peer,
        running={FETCHES: settings.limits.running_fetches},
        running_default=settings.limits.running_bytes,
        ageing=float(settings.jobs.ageing),
    )
    gate = Gate(limits, time.monotonic, first_order=rooms.ledger.next_order_now())
    for warning in (*rooms.access.warnings, *rooms.endpoint.warnings):
        log.warning(warning)
    house = House(
        settings=settings,
        store=rooms.store,
        board=Board(gate, rooms.ledger, rooms.activity, tasks, relief=partial(_make_room, rooms)),
        gate=gate,
        ledger=rooms.ledger,
        activity=rooms.activity,
        pulls=rooms.pulls,
        recovery=rooms.recovery,
        drain=lambda deadline: lifetime.stop("asked to by a client", deadline=deadline),
        instance=instance,
        server=f"modeld/{__version__}",
        socket=rooms.endpoint.path,
        started=time.time(),
        own_uid=os.getuid(),
        accounts=rooms.accounts,
        auto_started=auto_started,
    )
    server = Server(rooms.endpoint.socket, house, all_handlers(house), rooms.access, tasks)
    house.presence = server.hall.sessions
    return server, house


def _make_room(rooms: Rooms, kind: str) -> bool:
    """What frees space must be possible on a full disk: only for that the reserve is given up."""
    return kind in _FREEING and rooms.store.reserve.release()


def _announce(house: House, rooms: Rooms) -> None:
    found = {name: value for name, value in msgspec.to_builtins(house.recovery).items() if value}
    house.activity.record("daemon.started", pid=os.getpid(), version=__version__, **found)
    log.info("ready", socket=rooms.endpoint.path, store=rooms.store.layout.root, pid=os.getpid(), **found)


async def _stop(house: House, server: Server, lifetime: Lifetime) -> None:
    house.state = "draining"
    house.activity.record("daemon.stopping", reason=lifetime.reason)
    await drain(house.board, lifetime.deadline)
    house.activity.record("daemon.stopped", reason=lifetime.reason)
    await server.end_sessions()


async def _prune(rooms: Rooms, keep: float) -> None:
    """Finished jobs are forgotten after a while, and what pulls have learned; once a day is often enough for that."""
    while True:
        try:
            await rooms.ledger.prune(time.time(), keep)
            await rooms.pulls.memory.prune(time.time(), keep)
        except WireError as error:
            # A full disk, most likely: tomorrow is early enough.
            log.warning("old jobs and what pulls have learned could not be forgotten", error=error.message)
        except Exception as error:  # noqa: BLE001 - tidying up must never be what ends the daemon
            incident(error, work="forgetting old jobs")
        await anyio.sleep(_PRUNE_EVERY_SECONDS)
