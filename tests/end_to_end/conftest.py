from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from rigs.real_daemon import RealDaemon, Start
from rigs.rough_peers import SHORT

collect_ignore = ["test_torture_soak.py", "test_torture_cancel.py"] if SHORT else []
"""Too short a soak or storm judges the daemon before what was given up has closed its files: they run in full alone."""


@pytest.fixture
def start(stopped: RealDaemon) -> Start:
    """Starts the daemon with some settings of its own."""

    def started(**settings: str) -> RealDaemon:
        stopped.environ.update({f"MODELD_{name}": value for name, value in settings.items()})
        return stopped.start()

    return started


@pytest.fixture
def open_room() -> Iterator[str]:
    """A room that other users may enter: those of pytest are for their owner only."""
    room = tempfile.mkdtemp(prefix="modeld-", dir="/tmp")
    os.chmod(room, 0o755)
    yield room
    shutil.rmtree(room)


@pytest.fixture
def shared(open_room: str) -> Iterator[RealDaemon]:
    """A daemon that the test starts after it has written [access]."""
    made = RealDaemon(open_room)
    yield made
    made.close()
