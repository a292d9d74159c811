"""Eight daemons at one endpoint, over and over: exactly one owner each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest

from rigs import endpoint_race
from rigs.rough_peers import scaled


def race(rounds: int, seed: int = 1) -> None:
    with tempfile.TemporaryDirectory(prefix="md-") as directory:
        run = subprocess.run(
            [sys.executable, endpoint_race.__file__, directory, str(rounds), str(seed)],
            capture_output=True,
            text=True,
            timeout=100 + rounds,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout)
    assert outcome["breaches"] == []
    assert sum(outcome["played"].values()) == rounds
    assert set(outcome["played"]) == {"absent", "stale", "live"}


def test_eight_racers_and_one_owner() -> None:
    race(30)


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_eight_racers_and_one_owner_three_hundred_times() -> None:
    """Sixty times in the short form."""
    race(scaled(300, 60), seed=os.getpid())
