from __future__ import annotations

import pytest

from rigs.real_daemon import RealDaemon, Start


@pytest.fixture
def start(stopped: RealDaemon) -> Start:
    """Starts the daemon with some settings of its own."""

    def started(**settings: str) -> RealDaemon:
        stopped.environ.update({f"MODELD_{name}": value for name, value in settings.items()})
        return stopped.start()

    return started
