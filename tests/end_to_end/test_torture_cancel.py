"""A storm of requests that are cancelled at any moment, in every way that there is, beside others that are left alone.

Afterwards the daemon is as before: what was answered is true, nothing runs or waits that nobody wants, no slot is
stuck, and memory, threads and descriptors are back. `MODELD_SOAK_SEED` replays a storm.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from rigs.chaos_server import Chaos
from rigs.pull_rig import MIB, gguf
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import nginx, nginx_path
from rigs.rough_peers import scaled
from rigs.soak_commands import CommandClient
from rigs.soak_settling import Settling, first, resources_back
from rigs.soak_world import World, reported, seeded
from rigs.storm_bursts import Burst, StormClient

pytestmark = [
    pytest.mark.torture,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed"),
]

REQUESTS = scaled(300_000, 10_000)
SECONDS = float(os.environ.get("MODELD_SOAK_SECONDS") or scaled(600, 12))
"""Whichever comes first."""

ROUND_SECONDS = scaled(30, 10)
CLIENTS, BURSTS, COMMANDS = 6, 4, 2


@pytest.fixture
def world(stopped: RealDaemon, tmp_path: Path) -> Iterator[World]:
    with nginx(tmp_path / "nginx") as web, Chaos(gguf(6 * MIB, seed=9_999), rate=8 * MIB) as chaos:
        yield seeded(stopped, web, chaos)


class Storm:
    def __init__(self, world: World) -> None:
        self.world = world
        self.settling = Settling(world)
        self.clients = [StormClient(world, f"{world.seed} {number}") for number in range(CLIENTS)]
        self.bursts = [Burst(world, f"{world.seed} burst {number}") for number in range(BURSTS)]
        self.commands = [
            CommandClient(world, f"{world.seed} command {number}", impatient=0.85) for number in range(COMMANDS)
        ]
        self.over = False

    async def run(self) -> None:
        world = self.world
        await world.start()
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    self.fresh = await self.settling.fresh()
                    for client in (*self.clients, *self.bursts, *self.commands):
                        tasks.start_soon(client.run, lambda: self.over)
                    ends = time.monotonic() + SECONDS
                    while time.monotonic() < ends and world.requests < REQUESTS:
                        await anyio.sleep(ROUND_SECONDS)
                        await self.settling.settle(len(self.clients))
                finally:
                    self.over = True
                    await self.settling.looker.disconnect()
        except BaseExceptionGroup as group:
            raise first(group) from group


def test_a_storm_of_cancelled_requests_leaves_nothing_behind(world: World) -> None:
    storm = Storm(world)
    with reported(world):
        anyio.run(storm.run)
        nothing_is_stuck(world)
        resources_back(world.daemon, storm.fresh)
        storm.settling.log_agrees()
        world.no_incident()
        assert world.daemon.terminate() == 0


def nothing_is_stuck(world: World) -> None:
    """A new add and a new pull run at once, in each slot."""
    daemon = world.daemon
    status = daemon.ask("daemon.status")["value"]
    assert (status["queue"]["running"], status["queue"]["waiting"], status["connections"]) == (0, 0, 1), status
    assert status["watchers"] == 0
    assert status.get("reserved_bytes", 0) == 0
    with daemon.connect() as wire:
        # As many as there are slots of each kind, and each of bytes that are new.
        for number in range(2):
            path = daemon.file(f"new-{number}.gguf", gguf(100_000, seed=50_000 + number))
            added = wire.request("model.add", path=path, name=f"added-{number}")
            assert wire.until(added, "accepted", "error")["position"] == 0
            assert wire.terminal(added)["type"] == "result"
            (world.web.files / f"new-{number}.gguf").write_bytes(gguf(100_000, seed=60_000 + number))
            pulled = wire.request("model.pull", ref=f"{world.web.plain}/new-{number}.gguf", name=f"pulled-{number}")
            assert wire.until(pulled, "accepted", "error")["position"] == 0
            assert wire.terminal(pulled)["type"] == "result"
        verified = wire.ask("model.verify", all=True)["value"]
        assert verified["ok"], verified
