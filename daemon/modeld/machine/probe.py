"""Finds out what this machine offers. Blocks, so `modeld.machine.machine` calls it in a thread.

Of several graphics cards the largest counts, not their sum: not every engine spreads a model over cards, and a card
that is part of a processor adds nothing to another one. Who has such an engine states the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from modeld.machine import nvidia
from modeld.platform import graphics, hardware
from modelwire.values import Machine

NO_CARD: Final = "no graphics card was found"

_OF_APPLE: Final = ("metal", "coreml")
_OF_NVIDIA: Final = ("cuda", "tensorrt")
_ROCM: Final = "rocm"


def quick(sysfs: str = graphics.SYSFS) -> Machine:
    """What the kernel says, without asking a driver."""
    memory, limit = hardware.memory(), hardware.container_limit()
    machine = Machine(architecture=hardware.architecture(), ram_mb=_megabytes(memory))
    if limit is not None and (memory is None or limit < memory):
        machine = msgspec.structs.replace(machine, ram_mb=_megabytes(limit), ram_from="the limit of this container")
    if hardware.is_apple():
        return _apple(machine)
    rocm = graphics.computes_by_rocm(sysfs)
    machine = msgspec.structs.replace(
        machine,
        providers=(_ROCM, "cpu") if rocm else ("cpu",),
        absent_providers=_OF_APPLE if rocm else (_ROCM, *_OF_APPLE),
    )
    return _with_cards(machine, graphics.amd_cards(sysfs))


def whole(found: Machine, environ: Mapping[str, str], sysfs: str = graphics.SYSFS) -> Machine:
    """What `quick` has found, and the cards of NVIDIA."""
    if hardware.is_apple():
        return found
    nvidias = nvidia.look(environ, sysfs=sysfs)
    if nvidias.fault is not None:
        return silent(found, nvidias.fault)
    if not nvidias.cards:
        return msgspec.structs.replace(found, absent_providers=(*_OF_NVIDIA, *found.absent_providers))
    # An engine may bring a TensorRT of its own, so one that the loader does not find may be here all the same.
    here = ("tensorrt", "cuda") if nvidias.tensorrt else ("cuda",)
    found = msgspec.structs.replace(found, providers=(*here, *found.providers))
    return _with_cards(found, [*nvidias.cards, *graphics.amd_cards(sysfs)])


def silent(found: Machine, fault: str) -> Machine:
    """Without what NVIDIA's driver did not say."""
    return found if found.vram_mb is not None else msgspec.structs.replace(found, vram_from=fault)


def _apple(machine: Machine) -> Machine:
    machine = msgspec.structs.replace(
        machine, providers=(*_OF_APPLE, "cpu"), absent_providers=(*_OF_NVIDIA, _ROCM), vram_from=NO_CARD
    )
    if machine.ram_mb is None or machine.architecture != "aarch64":
        return machine
    graphic = graphics.unified(machine.ram_mb << 20, hardware.sysctl("iogpu.wired_limit_mb"))
    return msgspec.structs.replace(
        machine, vram_mb=_megabytes(graphic), vram_from="the part of the memory that the graphics may take"
    )


def _with_cards(machine: Machine, cards: list[graphics.Card]) -> Machine:
    measured = sorted((card for card in cards if card.memory), key=lambda card: -(card.memory or 0))
    if not measured:
        name = f"{cards[0].name} does not say how much memory it may take" if cards else NO_CARD
        return msgspec.structs.replace(machine, vram_from=name)
    largest = measured[0]
    of = f", the largest of {len(cards)} cards" if len(cards) > 1 else ""
    return msgspec.structs.replace(machine, vram_mb=_megabytes(largest.memory), vram_from=f"{largest.name}{of}")


def _megabytes(size: int | None) -> int | None:
    return None if size is None else size >> 20
