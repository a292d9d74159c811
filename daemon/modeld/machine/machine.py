"""This machine as it is now: looked at in a thread of its own, and remembered for a while.

A broken driver may never answer. So callers wait for a limited time, one look at most is on its way, and while it hangs
the machine is reported without what it would have found.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final

import msgspec

from modeld.machine import nvidia, probe
from modeld.platform import hardware
from modelwire.values import Machine

PATIENCE_SECONDS: Final = 2 * nvidia.SECONDS + 3.0
"""The child of the driver's library and its program each have their time, and a second to be killed in."""

REMEMBERED_SECONDS: Final = 30.0
"""Cards come and go with drivers that are loaded, not between two lines of a list."""

CONFIGURED: Final = "stated in the daemon's configuration"

Quick = Callable[[], Machine]
Whole = Callable[[Machine], Machine]


class _Look:
    """One look at the machine. `quick` is what was found before the drivers were asked."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.quick: Machine | None = None
        self.done: Future[Machine] = Future()


class ThisMachine:
    """Belongs to one event loop. What the configuration states, in MB, is not looked for; 0 states nothing."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        vram_mb: int = 0,
        ram_mb: int = 0,
        quick: Quick = probe.quick,
        whole: Whole | None = None,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vram_mb = vram_mb
        self._ram_mb = ram_mb
        self._quick = quick
        self._whole = whole or (lambda found: probe.whole(found, environ))
        self._patience = patience
        self._clock = clock
        self._look: _Look | None = None

    async def now(self) -> Machine:
        """The machine as it is, or was within the last seconds."""
        look = self._look
        if look is None or (look.done.done() and self._clock() >= look.began + REMEMBERED_SECONDS):
            look = self._look = _Look(self._clock())
            try:
                threading.Thread(target=self._run, args=(look,), name="machine", daemon=True).start()
            except RuntimeError as error:  # the system starts no more threads
                look.done.set_exception(error)
        if not look.done.done():
            left = look.began + self._patience - self._clock()
            await asyncio.wait([asyncio.wrap_future(look.done)], timeout=max(0.0, left))
        return self._as_stated(self._found(look))

    def _run(self, look: _Look) -> None:
        try:
            look.quick = self._quick()
            look.done.set_result(self._whole(look.quick))
        except BaseException as error:  # noqa: BLE001 - what was found before it counts
            look.done.set_exception(error)

    def _found(self, look: _Look) -> Machine:
        known = look.quick or Machine(architecture=hardware.architecture())
        if not look.done.done():
            return probe.silent(known, f"the drivers gave no answer within {self._patience:g} s")
        fault = look.done.exception()
        return look.done.result() if fault is None else probe.silent(known, f"the drivers cannot be asked: {fault}")

    def _as_stated(self, machine: Machine) -> Machine:
        if self._vram_mb:
            machine = msgspec.structs.replace(machine, vram_mb=self._vram_mb, vram_from=CONFIGURED)
        if self._ram_mb:
            machine = msgspec.structs.replace(machine, ram_mb=self._ram_mb, ram_from=CONFIGURED)
        return machine
