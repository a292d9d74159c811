from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever runs the suite in the background of a script has Ctrl-C ignored, also by all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_daemon_of_the_user() -> Iterator[None]:
    """What a test runs in this process finds no daemon of whoever runs the suite, and starts none: it names its own."""
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("MODELD_SOCKET", "/nowhere/modeld.sock")
        yield


@pytest.fixture
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a short path: a socket's has 107 bytes at most."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another filesystem than all other directories of the test."""
    places = ("/dev/shm", tempfile.gettempdir(), "/var/tmp")
    here = os.stat(tmp_path).st_dev
    place = next((place for place in places if os.path.isdir(place) and os.stat(place).st_dev != here), None)
    if place is None:
        pytest.skip("there is no second filesystem here")
    made = tempfile.mkdtemp(prefix="modeld-", dir=place)
    yield Path(made)
    shutil.rmtree(made)


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
