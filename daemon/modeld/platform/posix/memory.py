"""The C library's heap, beside Python's own: what it keeps of freed memory, and when it gives that back."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_BIG: Final = 128 * 1024
"""The library's own first values. It raises both to twice the biggest block that was ever freed; then such blocks come
from the heap, and stay there. Setting them ends that."""

_ARENAS: Final = 2
"""Instead of eight for each processor, of which each keeps what its threads have freed."""


def keep_heap_small() -> None:
    """Call it before threads are started. Best effort: only the GNU C library can."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _BIG)
        library.mallopt(_M_TRIM_THRESHOLD, _BIG)
        library.mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Returns the free pages of the heap to the system. Takes milliseconds, in which other threads go on."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
