"""The daemon's memory after work: buffers and heap go back to the system, and no collector is needed for it."""

from __future__ import annotations

import os

import pytest

from rigs.metered_server import metered
from rigs.pull_rig import MIB, pulled
from rigs.real_daemon import RealDaemon
from rigs.waiting import wait_until

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="the kernel tells it on Linux")


def mebibytes(daemon: RealDaemon) -> dict[str, float]:
    found = {}
    with open(f"/proc/{daemon.pid}/smaps_rollup", encoding="ascii") as lines:
        for name, _, rest in (line.partition(":") for line in lines):
            if rest.strip().endswith("kB"):
                found[name] = int(rest.split()[0]) / 1024
    return found


def test_after_pulls_the_buffers_are_gone(daemon: RealDaemon) -> None:
    pulled(daemon, __file__, name="warm")
    fresh = mebibytes(daemon)
    with metered(64 * MIB) as web:
        for number in range(6):
            pulled(daemon, f"{web.url}/{number}.gguf", name=f"m{number}")
    wait_until(lambda: mebibytes(daemon)["Pss_Shmem"] < fresh["Pss_Shmem"] + 1, what="the end of the buffers")
    wait_until(lambda: mebibytes(daemon)["Rss"] < fresh["Rss"] + 8, what="the end of all that the pulls needed")
