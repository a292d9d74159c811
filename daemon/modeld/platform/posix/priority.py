"""How important the work of a thread is to the disk."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
from collections.abc import Iterator
from typing import Final

_IOPRIO: Final = {"x86_64": (251, 252), "aarch64": (30, 31)}
"""The numbers of ioprio_set and ioprio_get."""
_THIS_THREAD: Final = (1, 0)  # a thread, and this one
_NO_CLASS, _IDLE = 0, 3 << 13  # without a class it is the one that belongs to the niceness
_LIBC = ctypes.CDLL(None)


@contextlib.contextmanager
def last_at_disk() -> Iterator[None]:
    """Within the block the disk serves this thread only when no other program waits for it. Best effort: it depends on
    the disk's scheduler."""
    numbers = _IOPRIO.get(platform.machine()) if sys.platform == "linux" else None
    if numbers is None:
        yield
        return
    set_number, get_number = numbers
    before = max(_NO_CLASS, _LIBC.syscall(get_number, *_THIS_THREAD))
    _LIBC.syscall(set_number, *_THIS_THREAD, _IDLE)
    try:
        yield
    finally:
        _LIBC.syscall(set_number, *_THIS_THREAD, before)
