"""The graphics cards that the kernel lists, and the memory of those that it knows: without a driver's library."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Final, NamedTuple

SYSFS: Final = "/sys"

_CARD: Final = re.compile(r"card\d+")
_DISPLAY: Final = "0x03"
"""The beginning of the PCI class of every graphics card."""

_NVIDIA: Final = "0x10de"

_LARGE: Final = 36 << 30
"""An Apple processor with so much memory gives its graphics three quarters of it, a smaller one two thirds: that is
what Metal recommends as the largest working set (10.7 of 16 GiB, 21.3 of 32, 27 of 36, 48 of 64)."""


class Card(NamedTuple):
    """`memory` is in bytes, None when the card does not say."""

    name: str
    memory: int | None


def amd_cards(sysfs: str = SYSFS) -> list[Card]:
    """Of a processor with graphics the memory that the firmware sets aside for it."""
    cards = os.path.join(sysfs, "class", "drm")
    found = []
    for card in filter(_CARD.fullmatch, _names(cards)):
        size = _number(os.path.join(cards, card, "device", "mem_info_vram_total"))
        if size:
            product = _text(os.path.join(cards, card, "device", "product_name"))
            found.append(Card(product or f"AMD {card}", size))
    return found


def computes_by_rocm(sysfs: str = SYSFS) -> bool:
    """Whether the kernel offers an AMD card for computing: a node of its topology that is no processor."""
    nodes = os.path.join(sysfs, "class", "kfd", "kfd", "topology", "nodes")
    return any(_number(os.path.join(nodes, node, "gpu_id")) for node in _names(nodes))


def lists_nvidia(sysfs: str = SYSFS) -> bool:
    """Whether there is an NVIDIA card or processor, also one whose driver does not answer."""
    devices = os.path.join(sysfs, "bus", "pci", "devices")
    for device in (os.path.join(devices, name) for name in _names(devices)):
        displays = _text(os.path.join(device, "class")).startswith(_DISPLAY)
        if displays and _text(os.path.join(device, "vendor")) == _NVIDIA:
            return True
    return "nvidia,tegra" in _text(os.path.join(sysfs, "firmware", "devicetree", "base", "compatible"))


def unified(memory: int, wired_limit_mb: int | None) -> int:
    """Of an Apple processor's memory of so many bytes, those that its graphics may take. The limit is the system's
    `iogpu.wired_limit_mb`, where 0 is the system's own share."""
    if wired_limit_mb:
        return min(memory, wired_limit_mb << 20)
    return memory * 3 // 4 if memory >= _LARGE else memory * 2 // 3


def _names(directory: str) -> list[str]:
    with suppress(OSError):
        return sorted(os.listdir(directory))
    return []


def _text(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read().strip()
    return ""


def _number(path: str) -> int:
    with suppress(ValueError):
        return int(_text(path))
    return 0
