"""A rig in a directory of its own, and the proof that it leaves no thread and no connection behind."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modeld.transfer.routes.condemned import Condemned
from modeld.transfer.tuning import Tuning
from transfer.rig import QUICK, Rig, own_threads

MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[MakeRig]:
    rigs: list[Rig] = []

    def make(tuning: Tuning = QUICK, *, root: str = "root", condemned: Condemned | None = None) -> Rig:
        rigs.append(Rig(str(tmp_path / root), tuning, condemned))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.client.close()
    assert _soon(lambda: not any(rig.transfer.hosts.open_connections() for rig in rigs))
    assert _soon(lambda: not own_threads()), own_threads()
    gc.collect()  # an unclosed socket is an error, and is to be one of this test


def _soon(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
