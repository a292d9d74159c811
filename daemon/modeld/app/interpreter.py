"""How the interpreter shares its time between the event loop and the threads: no thread may keep it for long."""

from __future__ import annotations

import gc
import sys
from time import thread_time
from typing import Final

SWITCH_SECONDS: Final = 0.0005
"""Python's own 5 ms are the time for which the loop waits for a thread that computes, at each of its system calls: with
a walk over 10,000 models, clients waited for 40 ms. Threads that hash or copy give the interpreter up by themselves."""

PAUSE_SECONDS: Final = 0.005
"""A full collection stops all threads: 45 ms for the modules of the daemon alone, 1 ms for 3,000 models."""


class Pauses:
    """Sets the objects that are alive aside when looking at them takes too long; they are freed by their count of
    references like all others. Those that become a cycle without a reference later, such as the tasks and the errors of
    requests that were under way, stay until `free_cycles`.

    The time is that of the processor: on a busy machine every collection lasts long, and each would set aside what
    requests hold at that moment."""

    def __init__(self) -> None:
        self._began = 0.0
        self._aside = False

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = thread_time()
        elif info["generation"] == 2 and thread_time() - self._began > PAUSE_SECONDS:
            gc.freeze()
            self._aside = True

    def free_cycles(self) -> None:
        """Frees the cycles among what was set aside since the last time. Stops all threads for the 50 ms that looking
        at everything takes: call it seldom, and when the daemon rests."""
        if not self._aside:
            return
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._aside = False


def share_time() -> Pauses:
    """Call it when everything that lasts is loaded, before the first client is served."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    pauses = Pauses()
    gc.callbacks.append(pauses)
    return pauses
