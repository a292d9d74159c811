"""No thread and no collection keeps the interpreter for long."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from modeld.app import interpreter
from modeld.app.interpreter import PAUSE_SECONDS, SWITCH_SECONDS, Pauses


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def collected(monkeypatch: pytest.MonkeyPatch, generation: int, seconds: float) -> int:
    """How many objects are set aside after a collection that took so long."""
    now = [100.0]
    monkeypatch.setattr(interpreter, "perf_counter", lambda: now[0])
    pauses = Pauses()
    pauses("start", {"generation": generation})
    now[0] += seconds
    pauses("stop", {"generation": generation})
    return gc.get_freeze_count()


def test_objects_are_set_aside_when_looking_at_them_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert collected(monkeypatch, 2, PAUSE_SECONDS / 2) == 0
    assert collected(monkeypatch, 1, PAUSE_SECONDS * 2) == 0
    assert collected(monkeypatch, 2, PAUSE_SECONDS * 2) > 0


def test_a_daemon_shares_its_time() -> None:
    code = (
        "import gc, sys; from modeld.app.interpreter import share_time; share_time()\n"
        "print(sys.getswitchinterval(), gc.get_freeze_count() > 0, len(gc.callbacks))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(SWITCH_SECONDS), "True", "1"]
