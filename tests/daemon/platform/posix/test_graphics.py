"""The graphics cards that the kernel lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeld.platform import graphics
from modeld.platform.posix.graphics import Card
from rigs.sysfs import AMD, DISPLAY, INTEL, NETWORK, NVIDIA, Sysfs

GIB = 1 << 30


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path / "sys")


def test_a_machine_without_cards(sysfs: Sysfs) -> None:
    assert graphics.amd_cards(sysfs.path) == []
    assert not graphics.computes_by_rocm(sysfs.path)
    assert not graphics.lists_nvidia(sysfs.path)


def test_the_cards_of_amd_with_their_memory(sysfs: Sysfs) -> None:
    sysfs.amd("card0", 512 << 20)
    sysfs.amd("card1", 24 * GIB, "Radeon Pro W7900")
    sysfs.write("class/drm/card1-HDMI-A-1/device/mem_info_vram_total", "1\n")
    sysfs.write("class/drm/renderD128/device/mem_info_vram_total", "1\n")
    sysfs.write("class/drm/version", "drm 1.1.0\n")
    sysfs.write("class/drm/card2/device/vendor", INTEL)
    sysfs.write("class/drm/card3/device/mem_info_vram_total", "what?\n")
    assert graphics.amd_cards(sysfs.path) == [Card("AMD card0", 512 << 20), Card("Radeon Pro W7900", 24 * GIB)]


def test_a_node_that_is_a_processor_does_not_compute(sysfs: Sysfs) -> None:
    sysfs.compute_node(0, 0)
    assert not graphics.computes_by_rocm(sysfs.path)
    sysfs.compute_node(1, 43_778)
    assert graphics.computes_by_rocm(sysfs.path)


@pytest.mark.parametrize(
    ("vendor", "kind", "listed"),
    [
        (NVIDIA, DISPLAY, True),
        (NVIDIA, "0x030200", True),  # a card for computing, without a plug
        (NVIDIA, NETWORK, False),
        (AMD, DISPLAY, False),
    ],
)
def test_a_card_of_nvidia_is_listed_whatever_its_driver_says(
    sysfs: Sysfs, vendor: str, kind: str, listed: bool
) -> None:
    sysfs.pci("0000:00:02.0", INTEL)
    sysfs.pci("0000:01:00.0", vendor, kind)
    assert graphics.lists_nvidia(sysfs.path) is listed


def test_a_processor_of_nvidia_is_no_card(sysfs: Sysfs) -> None:
    sysfs.write("firmware/devicetree/base/compatible", "nvidia,p3737-0000\0nvidia,tegra234\0")
    assert graphics.lists_nvidia(sysfs.path)


@pytest.mark.parametrize(
    ("memory", "limit_mb", "share"),
    [
        (16 * GIB, None, 16 * GIB * 2 // 3),
        (16 * GIB, 0, 16 * GIB * 2 // 3),
        (36 * GIB, 0, 27 * GIB),
        (64 * GIB, 0, 48 * GIB),
        (16 * GIB, 14_336, 14 * GIB),
        (16 * GIB, 99_999, 16 * GIB),
    ],
)
def test_the_share_of_an_apple_processors_graphics(memory: int, limit_mb: int | None, share: int) -> None:
    assert graphics.unified(memory, limit_mb) == share
