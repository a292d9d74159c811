"""Directories, in memory where that is wanted; a rig in one of its own, and the proof that it leaves nothing behind."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modeld.download.routes.condemned import Condemned
from modeld.download.tuning import Tuning
from rigs.download_rig import QUICK, Rig, own_threads
from rigs.waiting import wait_until

MakeRig = Callable[..., Rig]

MEMORY = "MODELD_TESTS_IN_MEMORY"
"""Names a directory in memory. The tests of this folder sync tens of thousands of files, and watch which calls are made
and in which order: what a disk does with them is the matter of those with real daemons, which stay on the disk."""


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    memory = os.environ.get(MEMORY)
    if not memory:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="modeld-", dir=memory) as made:
        yield Path(made)


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[MakeRig]:
    rigs: list[Rig] = []
    others = own_threads()

    def make(tuning: Tuning = QUICK, *, root: str = "root", condemned: Condemned | None = None) -> Rig:
        rigs.append(Rig(str(tmp_path / root), tuning, condemned))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.client.close()
    wait_until(lambda: not any(rig.transfer.hosts.open_connections() for rig in rigs), 10, "the end of its connections")
    wait_until(lambda: own_threads() <= others, 10, f"the end of all modeld's threads but {others}")
    gc.collect()  # an unclosed socket is an error, and is to be one of this test
