"""No thread and no collection keeps the interpreter for long."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
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
    monkeypatch.setattr(interpreter, "thread_time", lambda: now[0])
    pauses = Pauses()
    pauses("start", {"generation": generation})
    now[0] += seconds
    pauses("stop", {"generation": generation})
    return gc.get_freeze_count()


def test_objects_are_set_aside_when_looking_at_them_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert collected(monkeypatch, 2, PAUSE_SECONDS / 2) == 0
    assert collected(monkeypatch, 1, PAUSE_SECONDS * 2) == 0
    assert collected(monkeypatch, 2, PAUSE_SECONDS * 2) > 0


class Node:
    """In a cycle with itself."""

    def __init__(self) -> None:
        self.me = self


def test_cycles_of_what_was_set_aside_are_freed_when_the_daemon_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the tasks and errors of the requests that were under way when a collection took too long."""
    times = iter([0.0, 1.0, 2.0, 2.0, 3.0, 3.0])
    monkeypatch.setattr(interpreter, "thread_time", lambda: next(times))
    pauses = Pauses()
    node = Node()
    freed = weakref.ref(node)
    pauses("start", {"generation": 2})
    pauses("stop", {"generation": 2})
    del node
    gc.collect()
    assert freed() is not None, "set aside"
    pauses.free_cycles()
    assert freed() is None
    assert gc.get_freeze_count() > 0, "what is alive stays aside"


def test_nothing_is_looked_at_when_nothing_was_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "collect", lambda: pytest.fail("it keeps all clients waiting"))
    Pauses().free_cycles()


def test_a_daemon_shares_its_time() -> None:
    code = (
        "import gc, sys; from modeld.app.interpreter import share_time; share_time()\n"
        "print(sys.getswitchinterval(), gc.get_freeze_count() > 0, len(gc.callbacks))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(SWITCH_SECONDS), "True", "1"]
