"""The importance of a thread's work to the disk, and that it ends with the work."""

from __future__ import annotations

import ctypes
import platform
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from modeld.platform import priority

GET = {"x86_64": 252, "aarch64": 31}
SET = {"x86_64": 251, "aarch64": 30}
LIBC = ctypes.CDLL(None)
IDLE, OF_THE_UNIT = 3 << 13, 2 << 13 | 6

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in GET, reason="Linux has these calls, on some machines"
)


def now() -> int:
    return int(LIBC.syscall(GET[platform.machine()], 1, 0))


@pytest.mark.parametrize("before", [0, OF_THE_UNIT])
@pytest.mark.parametrize("fails", [False, True])
def test_a_thread_of_a_pool_gets_its_own_priority_back(before: int, fails: bool) -> None:
    """Other work runs on it next; a unit of systemd may have set one for the whole daemon."""

    def work() -> tuple[int, int]:
        LIBC.syscall(SET[platform.machine()], 1, 0, before)
        inside = -1
        try:
            with priority.last_at_disk():
                inside = now()
                if fails:
                    raise OSError
        except OSError:
            pass
        return inside, now()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == (IDLE, before)
