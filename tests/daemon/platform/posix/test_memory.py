"""What the heap of the C library has freed goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys
from modeld.platform import memory

memory.keep_heap_small()

def resident():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024

library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def filled(size):
    block = library.malloc(size)
    ctypes.memset(block, 1, size)
    return block

SIZE = {size}
blocks = [filled(SIZE) for _ in range((32 << 20) // SIZE)]
last = [filled(1000) for _ in range(1000)]  # the first ones fill the gaps of the heap
full = resident()
for block in blocks:
    library.free(block)
if {trim}:
    memory.give_back()
print((full - resident()) >> 20)
"""


def given_back(*, size: int, trim: bool) -> int:
    program = PROGRAM.replace("{size}", str(size)).replace("{trim}", str(trim))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library has such a heap")
def test_what_is_free_goes_back_though_the_end_of_the_heap_is_in_use() -> None:
    assert given_back(size=50_000, trim=False) < 8
    assert given_back(size=50_000, trim=True) > 24


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library has such a heap")
def test_a_big_block_goes_back_at_once() -> None:
    assert given_back(size=1 << 20, trim=False) > 24
