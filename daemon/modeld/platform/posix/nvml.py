"""NVIDIA cards, by the library of their driver. Its calls may hang or crash with a broken driver: make them in a child
process."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from modeld.platform.posix.graphics import Card

LIBRARY: Final = "libnvidia-ml.so.1"

_NAME_BYTES: Final = 96
"""NVML_DEVICE_NAME_V2_BUFFER_SIZE, which fits every name."""


class _Memory(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def cards(library: str = LIBRARY) -> list[Card]:
    """Raises OSError when the library is not here or too old, or the driver refuses. A card without memory of its own,
    as in a processor, does not say how much it may take."""
    nvml = ctypes.CDLL(library)
    try:
        _check(nvml.nvmlInit_v2(), "nvmlInit")
        count = ctypes.c_uint()
        _check(nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)), "nvmlDeviceGetCount")
        return [card for number in range(count.value) if (card := _card(nvml, number)) is not None]
    except AttributeError as missing:
        raise OSError(str(missing)) from None


def _card(nvml: Any, number: int) -> Card | None:
    """None for one that is lost: the others work on."""
    device, memory = ctypes.c_void_p(), _Memory()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(number), ctypes.byref(device)) != 0:
        return None
    named = nvml.nvmlDeviceGetName(device, name, ctypes.c_uint(_NAME_BYTES)) == 0
    measured = nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0
    return Card(
        name.value.decode(errors="replace") if named else f"NVIDIA card {number}",
        memory.total if measured and memory.total else None,
    )


def _check(code: int, call: str) -> None:
    if code:
        raise OSError(f"{call} fails with {code}")
