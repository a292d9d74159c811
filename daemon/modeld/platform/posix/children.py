"""Calls for a child process that must not outlive its parent, nor take the memory that its parent needs."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_F_SETPIPE_SZ: Final = 1031


def end_with_parent() -> None:
    """Makes the kernel end this process when the thread that started it ends. Best effort: only Linux can."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def kill_session(leader: int) -> None:
    """Ends a child that was started in a session of its own, with all that it has started there. The child has not been
    waited for: else its number may be another's by now."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def make_expendable() -> None:
    """Disables this process's core dump, and makes the kernel end it before others when memory runs out."""
    with contextlib.suppress(Exception):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")


def limit_memory(size: int) -> None:
    """Makes this process fail to take more memory than that for its data. Best effort."""
    with contextlib.suppress(Exception):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def widen_pipe(descriptor: int, size: int) -> None:
    """Lets the pipe hold `size` bytes, if the system allows this user as much."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, size)
