"""Whatever ends the daemon before or while it serves: one line, an exit code, and never a bare traceback."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modeld.app import run as running
from modeld.app.readiness import Readiness
from modeld.app.serve import _prune
from modeld.config import ConfigError, load
from modelwire.errors import Corrupt, InUse, ModeldError, NoSpace


@pytest.mark.parametrize(
    ("error", "exit_code", "code", "words"),
    [
        (ConfigError("log.level: no such level"), 2, "invalid_request", "no such level"),
        (InUse("the store is in use by pid 7"), 5, "in_use", "by pid 7"),
        (NoSpace("no room"), 8, "no_space", "no room"),
        (ModeldError("it cannot be"), 1, "internal", "it cannot be"),
        (PermissionError(errno.EACCES, "Permission denied", "/the/lock"), 13, "permission_denied", "/the/lock"),
        (OSError(errno.ENOSPC, "No space left on device", "/the/store"), 8, "no_space", "/the/store"),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [Corrupt("bad bytes")])]), 1, "corrupt", "bad bytes"),
        (RuntimeError("token=secret"), 1, "internal", "incident"),
        (ExceptionGroup("tasks", [ZeroDivisionError("x")]), 1, "internal", "incident"),
    ],
)
def test_every_failure_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    exit_code: int,
    code: str,
    words: str,
) -> None:
    @contextmanager
    def broken(*_: object, **__: object) -> Iterator[None]:
        raise error
        yield

    monkeypatch.setattr(running, "opened", broken)
    reader, writer = os.pipe()
    assert running.run(load({}, path=os.devnull), Readiness(writer), auto_started=False) == exit_code
    with open(reader, encoding="utf-8") as pipe:
        kind, _, facts = pipe.read().partition(" ")
    told = json.loads(facts)
    assert (kind, told["code"], told["exit"]) == ("ERROR", code, exit_code)
    assert words in told["message"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("modeld: ")]
    assert lines == [f"modeld: {told['message']}"]


async def test_a_full_disk_keeps_nobody_from_serving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Forgetting old jobs is a nicety."""

    class Asked(Exception):
        pass

    class Full:
        async def prune(self, now: float, keep: float) -> int:
            raise NoSpace("the disk is full")

    class Rooms:
        ledger = Full()

    async def not_now(_: float) -> None:
        raise Asked

    monkeypatch.setattr("modeld.app.serve.anyio.sleep", not_now)
    rooms: Any = Rooms()
    with pytest.raises(Asked):
        await _prune(rooms, 0.0)


async def test_a_clock_that_is_set_forward_expires_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    asked: list[float] = []

    class Pruned:
        async def prune(self, now: float, keep: float = 0.0) -> int:
            asked.append(now)
            return 0

    class Pulls:
        memory = job_partials = Pruned()

    class Rooms:
        ledger = store = Pruned()
        pulls = Pulls()

    began = time.time()

    async def a_year_later(_: float) -> None:
        if len(asked) > 4:
            raise Stop
        monkeypatch.setattr("time.time", lambda: began + 365 * 86400)

    monkeypatch.setattr("modeld.app.serve.anyio.sleep", a_year_later)
    rooms: Any = Rooms()
    with pytest.raises(Stop):
        await _prune(rooms, 0.0)
    assert len(asked) == 8
    assert max(asked) < began + 3600
