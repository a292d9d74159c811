from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever runs the suite in the background of a script has Ctrl-C ignored, also by all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a short path: a socket's has 107 bytes at most."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def stopped(room: Path) -> Iterator[RealDaemon]:
    """A daemon that the test starts itself."""
    made = RealDaemon(str(room))
    yield made
    made.close()


@pytest.fixture
def daemon(stopped: RealDaemon) -> RealDaemon:
    return stopped.start()


@pytest.fixture
def held(room: Path) -> Iterator[HeldDaemon]:
    """A daemon whose copying stands still until the test says otherwise; the test starts it."""
    made = HeldDaemon(str(room))
    yield made
    made.close()
