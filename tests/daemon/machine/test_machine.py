"""This machine is looked at once in a while, and nobody waits for a driver that hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import anyio
import msgspec
import pytest

from modeld.machine.machine import CONFIGURED, REMEMBERED_SECONDS, ThisMachine
from modeld.platform import hardware
from modelwire.values import Machine
from rigs.waiting import all_wait, eventually

QUICK = Machine(architecture="x86_64", ram_mb=8192, vram_from="no card")
WHOLE = msgspec.structs.replace(QUICK, vram_mb=24576, vram_from="RTX", providers=("cuda", "cpu"))
LONG = 30.0


class Looks:
    """Counts the looks; the drivers answer when they may."""

    def __init__(self) -> None:
        self.quick, self.whole, self.now = 0, 0, 1000.0
        self.free = threading.Event()
        self.free.set()
        self.fault: Exception | None = None

    def look_quick(self) -> Machine:
        self.quick += 1
        return QUICK

    def look_whole(self, found: Machine) -> Machine:
        self.whole += 1
        assert found == QUICK
        assert self.free.wait(LONG)
        if self.fault is not None:
            raise self.fault
        return WHOLE

    def machine(self, *, patience: float = LONG, vram_mb: int = 0, ram_mb: int = 0) -> ThisMachine:
        return ThisMachine(
            {},
            vram_mb=vram_mb,
            ram_mb=ram_mb,
            quick=self.look_quick,
            whole=self.look_whole,
            patience=patience,
            clock=lambda: self.now,
        )


@pytest.fixture
def looks() -> Iterator[Looks]:
    made = Looks()
    yield made
    made.free.set()


async def test_a_look_is_remembered_for_a_while(looks: Looks) -> None:
    machine = looks.machine()
    assert await machine.now() == WHOLE
    looks.now += REMEMBERED_SECONDS - 1
    assert await machine.now() == WHOLE
    assert (looks.quick, looks.whole) == (1, 1)
    looks.now += 1
    assert await machine.now() == WHOLE
    assert (looks.quick, looks.whole) == (2, 2)


async def test_callers_share_a_look(looks: Looks) -> None:
    looks.free.clear()
    machine, found = looks.machine(), []

    async def ask() -> None:
        found.append(await machine.now())

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
        await all_wait()
        assert found == []
        looks.free.set()
    assert found == [WHOLE] * 5
    assert looks.quick == 1


async def test_a_driver_that_hangs_is_waited_for_once(looks: Looks) -> None:
    looks.free.clear()
    machine = looks.machine(patience=0.2)
    assert await machine.now() == msgspec.structs.replace(QUICK, vram_from="the drivers gave no answer within 0.2 s")
    looks.now += 1000
    with anyio.fail_after(LONG):
        for _ in range(1000):
            assert (await machine.now()).vram_mb is None
    assert looks.quick == 1, "no second thread hangs beside the first"
    looks.free.set()
    await eventually(lambda: all(thread.name != "machine" for thread in threading.enumerate()))
    assert looks.whole == 1


async def test_a_caller_that_leaves_ends_no_look(looks: Looks) -> None:
    looks.free.clear()
    machine = looks.machine()
    with anyio.move_on_after(0.05):
        await machine.now()
    looks.free.set()
    assert await machine.now() == WHOLE
    assert looks.quick == 1


async def test_a_look_that_fails_costs_no_answer(looks: Looks) -> None:
    looks.fault = OSError("no more processes")
    assert await looks.machine().now() == msgspec.structs.replace(
        QUICK, vram_from="the drivers cannot be asked: no more processes"
    )


async def test_without_a_thread_there_is_still_an_answer(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    found = await looks.machine(ram_mb=4096).now()
    assert (found.architecture, found.ram_mb) == (hardware.architecture(), 4096)
    assert found.vram_from == "the drivers cannot be asked: can't start new thread"


async def test_what_the_configuration_states_counts(looks: Looks) -> None:
    found = await looks.machine(vram_mb=16384, ram_mb=65536).now()
    assert (found.vram_mb, found.vram_from) == (16384, CONFIGURED)
    assert (found.ram_mb, found.ram_from) == (65536, CONFIGURED)
    assert found.providers == WHOLE.providers


async def test_this_machine_answers() -> None:
    with anyio.fail_after(LONG):
        found = await ThisMachine({}).now()
    assert found.architecture == hardware.architecture()
    assert "cpu" in found.providers
    assert not set(found.providers) & set(found.absent_providers)
