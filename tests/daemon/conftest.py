"""A rig in a directory of its own, and the proof that it leaves no thread and no connection behind."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modeld.download.routes.condemned import Condemned
from modeld.download.tuning import Tuning
from rigs.download_rig import QUICK, Rig, own_threads
from rigs.waiting import wait_until

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
    wait_until(lambda: not any(rig.transfer.hosts.open_connections() for rig in rigs), 10, "the end of its connections")
    wait_until(lambda: not own_threads(), 10, "the end of its threads")
    gc.collect()  # an unclosed socket is an error, and is to be one of this test
