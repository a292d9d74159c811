"""How the interpreter shares its time between the event loop and the threads: no thread may keep it for long."""

from __future__ import annotations

import gc
import sys
from time import perf_counter
from typing import Final

SWITCH_SECONDS: Final = 0.0005
"""Python's own 5 ms are the time for which the loop waits for a thread that computes, at each of its system calls: with
a walk over 10,000 models, clients waited for 40 ms. Threads that hash or copy give the interpreter up by themselves."""

PAUSE_SECONDS: Final = 0.005
"""A full collection stops all threads: 45 ms for the modules of the daemon alone, 1 ms for 3,000 models."""


class Pauses:
    """Sets the objects that are alive aside when looking at them takes too long; they are freed by their count of
    references like all others. What becomes a cycle without a reference later stays: few of the long-lived objects are
    in one."""

    def __init__(self) -> None:
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = perf_counter()
        elif info["generation"] == 2 and perf_counter() - self._began > PAUSE_SECONDS:
            gc.freeze()


def share_time() -> None:
    """Call it when everything that lasts is loaded, before the first client is served."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.callbacks.append(Pauses())
