"""Random operations of many clients on one daemon that is killed, stopped and started meanwhile, judged by a model.

The seed is printed; `MODELD_SOAK_SEED` gives it again, and `MODELD_SOAK_SECONDS` another length.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from rigs.chaos_server import Chaos, Fault, Kind
from rigs.pull_rig import MIB, gguf
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import nginx, nginx_path
from rigs.rough_peers import scaled
from rigs.soak_actions import SoakClient
from rigs.soak_clients import Worker
from rigs.soak_commands import CommandClient
from rigs.soak_settling import Settling, first, resources_back
from rigs.soak_world import NAMES, World, reported, seeded

pytestmark = [
    pytest.mark.torture,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed"),
]

SECONDS = float(os.environ.get("MODELD_SOAK_SECONDS") or scaled(900, 20))
ROUND_SECONDS = scaled(25, 5)
CLIENTS = 6
COMMANDS = 2
STEADY = 0.35
"""The last part of the soak, in which one daemon lives on: its memory is that of all this work."""

FAULTS: tuple[Kind, ...] = ("drop", "short", "status", "excess", "ignored_range", "chunked", "no_length")


@pytest.fixture
def world(stopped: RealDaemon, tmp_path: Path) -> Iterator[World]:
    with nginx(tmp_path / "nginx") as web, Chaos(gguf(6 * MIB, seed=9_999), rate=8 * MIB) as chaos:
        yield seeded(stopped, web, chaos)


class Soak:
    def __init__(self, world: World) -> None:
        self.world = world
        self.settling = Settling(world)
        self.clients: list[Worker] = [SoakClient(world, f"{world.seed} {number}") for number in range(CLIENTS)]
        self.clients += [CommandClient(world, f"{world.seed} command {number}") for number in range(COMMANDS)]
        self.over = False
        self.rough = True

    async def run(self, seconds: float) -> None:
        """Rounds of work, each ended by a settling; towards the end without a restart."""
        await self.world.start()
        try:
            async with anyio.create_task_group() as tasks:
                for client in self.clients:
                    tasks.start_soon(client.run, lambda: self.over)
                try:
                    await self._rounds(time.monotonic(), seconds)
                finally:
                    self.over = True
                    await self.settling.looker.disconnect()
        except BaseExceptionGroup as group:
            raise first(group) from group

    async def _rounds(self, began: float, seconds: float) -> None:
        while self.rough or time.monotonic() - began < seconds:
            if self.rough and time.monotonic() - began > seconds * (1 - STEADY):
                await self._begin_steady()
            async with anyio.create_task_group() as troubles:
                for trouble in (self._lives, self._others, self._network):
                    troubles.start_soon(trouble)
                await anyio.sleep(ROUND_SECONDS)
                troubles.cancel_scope.cancel()
            self.world.chaos.faults.clear()
            await self.settling.settle(len(self.clients))

    async def _begin_steady(self) -> None:
        """From here on the daemon stays; what it needs when nothing was done yet is the measure of the end."""
        self.rough, world = False, self.world
        async with self.settling.resting(len(self.clients)):
            await world.restart(world.terminate)
            await self.settling.looker.disconnect()
            self.fresh = await self.settling.fresh()

    async def _lives(self) -> None:
        """Kills and stops, at any moment; not in the steady part."""
        chance = self.world.chance
        while self.rough:
            await anyio.sleep(chance.expovariate(1 / 4))
            with anyio.CancelScope(shield=True):
                kill = chance.random() < 0.7
                self.world.counts["kill -9" if kill else "stop"] += 1
                await self.world.restart(self.world.daemon.kill if kill else self.world.terminate)

    async def _others(self) -> None:
        """Another tool of this store, and one that drops files anywhere."""
        world, number = self.world, 0
        while True:
            await anyio.sleep(world.chance.expovariate(1))
            number += 1
            with anyio.CancelScope(shield=True):
                if number % 8 == 0:
                    world.counts["junk"] += 1
                    world.litter(number)
                elif not world.sweep_unknown and not world.exclusive.locked():
                    async with world.exclusive:
                        world.counts["another tool"] += 1
                        await world.publish_as_another_tool(world.chance.choice(NAMES))

    async def _network(self) -> None:
        chance, chaos = self.world.chance, self.world.chaos
        while True:
            await anyio.sleep(chance.expovariate(1 / 2))
            kind = chance.choice(FAULTS)
            self.world.counts["network fault"] += 1
            chaos.faults.append(Fault(kind, at=0.0, status=503))


def test_whatever_clients_do_the_store_never_lies(world: World) -> None:
    soak = Soak(world)
    with reported(world):
        anyio.run(soak.run, SECONDS)
        resources_back(world.daemon, soak.fresh)
        soak.settling.log_agrees()
        world.no_incident()
