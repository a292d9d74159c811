from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from rigs.command import COMMAND
from rigs.real_daemon import RealDaemon

Done = subprocess.CompletedProcess[str]


class Ctl:
    """`modelctl`, talking to one real daemon."""

    def __init__(self, daemon: RealDaemon) -> None:
        self.daemon = daemon

    def __call__(self, *arguments: str, **environ: str) -> Done:
        return subprocess.run(
            [*COMMAND, *arguments],
            env=self.daemon.environ | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def path(self, *arguments: str) -> str:
        done = self("path", *arguments)
        assert done.returncode == 0, done.stderr
        assert os.path.isabs(done.stdout)
        return done.stdout.removesuffix("\n")


@pytest.fixture
def ctl(daemon: RealDaemon) -> Ctl:
    return Ctl(daemon)
