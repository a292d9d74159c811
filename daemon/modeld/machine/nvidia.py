"""What NVIDIA's driver says of its cards: by its library in a child process, else by its program."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from modeld.machine.programs import Report, report
from modeld.platform import graphics

CHILD: Final = (sys.executable, "-P", "-m", "modeld.machine.child")
PROGRAM: Final = "nvidia-smi"
QUERY: Final = ("--query-gpu=memory.total,name", "--format=csv,noheader,nounits")

SECONDS: Final = 8.0
"""For the child, and as long for the program. A driver that no program keeps loaded takes a second or two for each card
to wake, so eight cards stay within it, and both within the 30 s that a client waits for an answer."""

_INHERITED: Final = ("LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "SYSTEMROOT")
"""What an interpreter and a driver need to find their files. None of them holds a secret."""


class Nvidia(NamedTuple):
    """`cards` is empty when there is none; `fault` says why there may be some that were not found."""

    cards: list[graphics.Card]
    tensorrt: bool = False
    fault: str | None = None


def look(
    environ: Mapping[str, str],
    *,
    sysfs: str = graphics.SYSFS,
    child: Sequence[str] = CHILD,
    seconds: float = SECONDS,
) -> Nvidia:
    """Blocks for little longer than twice so many seconds, when the driver hangs."""
    kept = {name: environ[name] for name in _INHERITED if name in environ}
    found = _by_library(child, kept, seconds)
    if found is None:
        found = _by_program(kept, seconds)
    if not found.cards and found.fault is None and graphics.lists_nvidia(sysfs):
        return found._replace(fault="an NVIDIA card is here, and its driver does not answer the daemon")
    return found


def _by_library(child: Sequence[str], environ: Mapping[str, str], seconds: float) -> Nvidia | None:
    """None when the library is of no use here."""
    ran = report(child, seconds, environ)
    known = _documents(ran.output)
    if "cards" in known:
        cards = [graphics.Card(name, memory) for name, memory in known["cards"]]
        return Nvidia(cards, tensorrt=known.get("tensorrt", False))
    return _silent(seconds) if ran.code is None else None


def _documents(output: str) -> dict[str, Any]:
    """All lines together. The child may have died in the middle of one."""
    known: dict[str, Any] = {}
    for line in output.splitlines():
        with suppress(ValueError):
            known |= json.loads(line)
    return known


def _by_program(environ: Mapping[str, str], seconds: float) -> Nvidia:
    program = shutil.which(PROGRAM, path=environ.get("PATH"))
    if program is None or not os.path.isabs(program):
        return Nvidia([])
    try:
        ran = report((program, *QUERY), seconds, environ)
    except OSError:
        return Nvidia([])
    if ran.code is None:
        return _silent(seconds)
    return Nvidia(_listed(ran))


def _listed(ran: Report) -> list[graphics.Card]:
    """A line for each card: MB of 1024 x 1024 bytes or a word in brackets, and the name."""
    cards = []
    for line in ran.output.splitlines() if ran.code == 0 else ():
        memory, comma, name = (part.strip() for part in line.partition(","))
        if comma:
            cards.append(graphics.Card(name, int(memory) << 20 if memory.isdecimal() else None))
    return cards


def _silent(seconds: float) -> Nvidia:
    return Nvidia([], fault=f"the driver of NVIDIA gave no answer within {seconds:g} s")
