"""The memory of the machine, and the word for its processors."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from typing import Final

CONTAINER: Final = "/sys/fs/cgroup/memory.max"
"""The limit of the whole container in which the daemon runs, its engines included. Outside of a container there is no
such file: the kernel gives the root of all groups no limit. That of the daemon's own service is below this root, and
does not count: engines run elsewhere."""

WORDS: Final = {
    "arm64": "aarch64",
    "amd64": "x86_64",
    "armv7l": "armv7",
    "armv8l": "armv7",  # a program of 32 bits on a processor of 64
    **dict.fromkeys(("i386", "i486", "i586", "i686"), "x86"),
}
"""Of processors, where systems name them otherwise than models do."""


def memory() -> int | None:
    """In bytes. Not from /proc/meminfo, which the sandbox of a service hides."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
    return found if found > 0 else None


def container_limit(path: str = CONTAINER) -> int | None:
    """In bytes; None outside of a container, without a limit, and when it cannot be read."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())  # `max` is no number
    except (OSError, ValueError):
        return None


def architecture(name: str | None = None) -> str:
    """The word that models use for the processors; the argument is the system's."""
    word = (name or os.uname().machine).lower()
    return WORDS.get(word, word)


def is_apple() -> bool:
    return sys.platform == "darwin"


def sysctl(name: str) -> int | None:
    """A number that macOS keeps under this name; None on other systems, and when there is none."""
    value, size = ctypes.c_int64(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int64))
    if is_apple():
        with suppress(OSError, AttributeError):
            call = ctypes.CDLL(None).sysctlbyname
            if call(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)) == 0:
                return value.value
    return None


def loads(*libraries: str) -> bool:
    """Whether the system's loader finds and loads one of these libraries, by its name alone. That runs code of the
    library: call it in a child process."""
    for each in libraries:
        with suppress(OSError):
            ctypes.CDLL(each)
            return True
    return False
