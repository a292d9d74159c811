"""A real daemon whose store lies on a disk that takes seconds for every look, from a moment of the test's choice."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from rigs.real_daemon import RealDaemon

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "slow_disk.c")


def built(room: str) -> str:
    """The library that delays calls; skips the test where there is no compiler for it."""
    compiler = shutil.which("cc")
    if compiler is None or os.uname().sysname != "Linux":
        pytest.skip("there is no C compiler here, or no Linux")
    made = os.path.join(room, "slow_disk.so")
    if not os.path.exists(made):
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", made, SOURCE, "-ldl"], check=True)
    return made


class DaemonOnSlowDisk(RealDaemon):
    """As fast as any, except within `slow`."""

    def __init__(self, room: str, directory: str = "models") -> None:
        """All below the directory of the room is on that disk, the store itself or what it only reads."""
        self._control = os.path.join(room, "slow")
        super().__init__(
            room,
            {
                "LD_PRELOAD": built(room),
                "SLOW_DISK_DIR": os.path.join(room, directory),
                "SLOW_DISK_FILE": self._control,
            }
            | ({"SLOW_DISK_SYNCS": "1"} if directory == "models" else {}),
        )

    @contextlib.contextmanager
    def slow(self, milliseconds: int) -> Iterator[None]:
        """Calls that have begun take as long as they were to take, also after the end."""
        with open(f"{self._control}.new", "w", encoding="ascii") as file:
            file.write(str(milliseconds))
        os.rename(f"{self._control}.new", self._control)
        try:
            yield
        finally:
            os.unlink(self._control)
