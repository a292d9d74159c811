"""What is found of a machine becomes what it offers to models."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeld.machine import nvidia, probe
from modeld.machine.nvidia import Nvidia
from modeld.platform import hardware
from modeld.platform.posix.graphics import Card
from modelwire.values import Machine
from rigs.sysfs import Sysfs

GIB = 1 << 30


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path / "sys")


class Hardware:
    """A machine of the test's choice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.memory: int | None = 32 * GIB
        self.limit: int | None = None
        self.architecture = "x86_64"
        self.apple = False
        self.nvidia = Nvidia([])
        monkeypatch.setattr(hardware, "memory", lambda: self.memory)
        monkeypatch.setattr(hardware, "container_limit", lambda: self.limit)
        monkeypatch.setattr(hardware, "architecture", lambda: self.architecture)
        monkeypatch.setattr(hardware, "is_apple", lambda: self.apple)
        monkeypatch.setattr(hardware, "sysctl", lambda name: {"iogpu.wired_limit_mb": 0}[name])
        monkeypatch.setattr(nvidia, "look", lambda environ, sysfs: self.nvidia)

    def found(self, sysfs: Sysfs) -> Machine:
        return probe.whole(probe.quick(sysfs.path), {}, sysfs.path)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Hardware:
    return Hardware(monkeypatch)


def test_a_machine_without_a_card(here: Hardware, sysfs: Sysfs) -> None:
    assert here.found(sysfs) == Machine(
        architecture="x86_64",
        ram_mb=32768,
        vram_from="no graphics card was found",
        providers=("cpu",),
        absent_providers=("cuda", "tensorrt", "rocm", "metal", "coreml"),
    )


@pytest.mark.parametrize(
    ("memory", "limit", "ram_mb", "ram_from"),
    [
        (32 * GIB, 8 * GIB, 8192, "the limit of this container"),
        (None, 8 * GIB, 8192, "the limit of this container"),
        (32 * GIB, 64 * GIB, 32768, None),
        (None, None, None, None),
    ],
)
def test_the_limit_of_a_container_counts_when_it_is_lower(
    here: Hardware, sysfs: Sysfs, memory: int | None, limit: int | None, ram_mb: int | None, ram_from: str | None
) -> None:
    here.memory, here.limit = memory, limit
    found = here.found(sysfs)
    assert (found.ram_mb, found.ram_from) == (ram_mb, ram_from)


def test_an_nvidia_card(here: Hardware, sysfs: Sysfs) -> None:
    here.nvidia = Nvidia([Card("RTX 4090", 24 * GIB)])
    found = here.found(sysfs)
    assert (found.vram_mb, found.vram_from) == (24576, "RTX 4090")
    assert (found.providers, found.absent_providers) == (("cuda", "cpu"), ("rocm", "metal", "coreml"))
    here.nvidia = here.nvidia._replace(tensorrt=True)
    assert here.found(sysfs).providers == ("tensorrt", "cuda", "cpu")


def test_of_several_cards_the_largest_counts_and_not_their_sum(here: Hardware, sysfs: Sysfs) -> None:
    here.nvidia = Nvidia([Card("RTX 3060", 12 * GIB), Card("RTX 4090", 24 * GIB)])
    sysfs.amd("card0", GIB)
    found = here.found(sysfs)
    assert (found.vram_mb, found.vram_from) == (24576, "RTX 4090, the largest of 3 cards")


def test_an_amd_card(here: Hardware, sysfs: Sysfs) -> None:
    sysfs.amd("card0", 16 * GIB, "Radeon RX 7800 XT")
    found = here.found(sysfs)
    assert (found.vram_mb, found.vram_from, found.providers) == (16384, "Radeon RX 7800 XT", ("cpu",))
    assert "rocm" in found.absent_providers
    sysfs.compute_node(1, 43_778)
    found = here.found(sysfs)
    assert (found.providers, found.absent_providers) == (("rocm", "cpu"), ("cuda", "tensorrt", "metal", "coreml"))


def test_a_card_without_memory_of_its_own(here: Hardware, sysfs: Sysfs) -> None:
    here.nvidia = Nvidia([Card("GB10", None)])
    found = here.found(sysfs)
    assert (found.vram_mb, found.vram_from) == (None, "GB10 does not say how much memory it may take")
    assert "cuda" in found.providers


def test_nothing_is_claimed_of_a_driver_that_does_not_answer(here: Hardware, sysfs: Sysfs) -> None:
    here.nvidia = Nvidia([], fault="the driver hangs")
    found = here.found(sysfs)
    assert (found.vram_mb, found.vram_from, found.providers) == (None, "the driver hangs", ("cpu",))
    assert "cuda" not in found.absent_providers
    sysfs.amd("card0", GIB)
    found = here.found(sysfs)
    assert (found.vram_mb, found.vram_from) == (1024, "AMD card0")


def test_an_apple_processor_shares_its_memory(here: Hardware, sysfs: Sysfs) -> None:
    here.apple, here.architecture, here.memory = True, "aarch64", 64 * GIB
    here.nvidia = Nvidia([Card("nobody asks", GIB)])
    assert here.found(sysfs) == Machine(
        architecture="aarch64",
        ram_mb=65536,
        vram_mb=49152,
        vram_from="the part of the memory that the graphics may take",
        providers=("metal", "coreml", "cpu"),
        absent_providers=("cuda", "tensorrt", "rocm"),
    )


def test_an_older_apple_machine_has_cards_that_are_not_known(here: Hardware, sysfs: Sysfs) -> None:
    here.apple = True
    found = here.found(sysfs)
    assert (found.vram_mb, found.providers) == (None, ("metal", "coreml", "cpu"))
