"""A running daemon seen and disturbed from the kernel's side: strace writes its calls down, fails or kills them."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rigs.real_daemon import RealDaemon
from rigs.waiting import wait_until

SECONDS = 10


@functools.cache
def may_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        probe = subprocess.Popen(
            ["strace", "-p", str(sleeper.pid), "-o", os.devnull], stderr=subprocess.PIPE, text=True
        )
        assert probe.stderr is not None
        attached = "attached" in probe.stderr.readline()
        sleeper.kill()
        probe.communicate(timeout=SECONDS)
    return attached


@pytest.fixture(scope="module")
def strace() -> None:
    if not may_trace():
        pytest.skip("there is no strace here, or it may not attach")


class Trace:
    """What strace has written down so far."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def text(self) -> str:
        with open(self.path, encoding="utf-8", errors="replace") as file:
            return file.read()

    @property
    def killed(self) -> bool:
        """Whether some call was begun and never came back; one that goes on after the tracer left says `detached`."""
        return re.search(r"= \?$", self.text, re.MULTILINE) is not None

    @property
    def failed(self) -> bool:
        return "(INJECTED)" in self.text


@contextmanager
def traced(
    daemon: RealDaemon, *expressions: str, full: bool = False, threads: bool = True, path: str = ""
) -> Iterator[Trace]:
    """`full`: paths of descriptors, and whole strings. Each thread has its own count for a `when=`. Without `threads`,
    only the thread of the event loop. With `path` only calls that have to do with this file or directory."""
    trace = Trace(os.path.join(daemon.room, "strace"))
    arguments = ["strace", "-p", str(daemon.pid), "-o", trace.path, *(["-y", "-s", "4096"] if full else [])]
    arguments += ["-f"] if threads else []
    arguments += ["-P", path] if path else []
    for expression in expressions:
        arguments += ["-e", expression]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        try:
            yield trace
        finally:
            tracer.terminate()
            # A tracer of a process that was killed may wait for its threads forever.
            wait_until(lambda: tracer.poll() is not None or trace.killed, what="the end of strace")
            tracer.kill()
    if trace.killed:
        daemon.wait()


@contextmanager
def killed_at(daemon: RealDaemon, call: str, nth: int) -> Iterator[Trace]:
    """The kernel kills the daemon at the beginning of its n-th such call from now on."""
    with traced(daemon, f"trace={call}", f"inject={call}:signal=KILL:when={nth}") as trace:
        yield trace


@contextmanager
def failing_at(daemon: RealDaemon, call: str, nth: int, code: str) -> Iterator[Trace]:
    """The n-th such call from now on is not made, and gives this error."""
    with traced(daemon, f"trace={call}", f"inject={call}:error={code}:when={nth}") as trace:
        yield trace
