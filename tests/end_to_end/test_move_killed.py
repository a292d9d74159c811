"""A daemon that is killed at each system call of a move: at every moment one of the two names is there, and an
accepted move is finished by the next start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from real_daemon import RealDaemon, wait_until

CALLS = ("renameat2", "unlink", "fsync", "fdatasync", "ftruncate", "fchmod")
CONTENT = b"GGUF weights"
LONGEST = 30


@contextmanager
def killed_at(daemon: RealDaemon, call: str, nth: int) -> Iterator[None]:
    """The kernel kills the daemon at the beginning of its n-th such call from now on."""
    strace = shutil.which("strace")
    assert strace is not None
    traced = f"trace={call}", f"inject={call}:signal=KILL:when={nth}"
    arguments = [strace, "-f", "-p", str(daemon.pid), "-o", os.devnull]
    for expression in traced:
        arguments += ["-e", expression]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        try:
            yield
        finally:
            if daemon.process is not None and daemon.process.poll() is None:
                tracer.terminate()
                with suppress(subprocess.TimeoutExpired):
                    tracer.wait(5)
            # A tracer of a process that was killed may wait for its threads forever.
            tracer.kill()


@pytest.fixture(scope="module", autouse=True)
def may_trace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        probe = subprocess.Popen(
            ["strace", "-p", str(sleeper.pid), "-o", os.devnull], stderr=subprocess.PIPE, text=True
        )
        assert probe.stderr is not None
        attached = "attached" in probe.stderr.readline()
        sleeper.kill()
        probe.communicate(timeout=10)
    if not attached:
        pytest.skip("this machine does not let strace attach")


def whole_names(daemon: RealDaemon) -> list[str]:
    """The models as any reader without the daemon finds them: each manifest whole, and its bytes there."""
    found = []
    for path in sorted(Path(daemon.root, "manifests").glob("*.json")):
        document = json.loads(path.read_bytes())
        digest = document["blob"].removeprefix("sha256:")
        assert Path(daemon.root, "blobs", "sha256", digest[:2], digest, "data").read_bytes() == CONTENT
        assert document["name"] == path.stem
        found.append(path.stem)
    return found


def move(daemon: RealDaemon, source: str, destination: str) -> tuple[bool, bool]:
    """Whether the move was accepted, and whether it was answered."""
    accepted = False
    try:
        with daemon.connect() as wire:
            wire.request("model.move", source=source, destination=destination)
            while True:
                kind = wire.read()["type"]
                accepted = accepted or kind == "accepted"
                if kind in ("result", "error"):
                    return accepted, kind == "result"
    except (EOFError, OSError):
        return accepted, False


def all_ended(daemon: RealDaemon) -> bool:
    jobs = daemon.ask("job.list")["value"]["jobs"]
    return all(job["state"] in ("done", "failed", "cancelled") for job in jobs)


@pytest.mark.parametrize("call", CALLS)
def test_one_of_the_names_is_there_whenever_the_daemon_dies(daemon: RealDaemon, call: str) -> None:
    assert daemon.ask("model.add", path=daemon.file("a.gguf", CONTENT), name="a")["type"] == "result"
    here, there = "a", "b"
    for nth in range(1, LONGEST):
        with killed_at(daemon, call, nth):
            accepted, answered = move(daemon, here, there)
        names = whole_names(daemon)
        assert names in ([here], [there], ["a", "b"])
        if answered:
            assert names == [there]
            if daemon.process is not None and daemon.process.poll() is None:
                assert nth > 1
                return
        else:
            daemon.wait()
        daemon.start()
        # What was accepted is in the ledger, and goes on. What was not may be in it or not.
        wait_until(
            lambda: len(whole_names(daemon)) == 1 and not daemon.ask("job.list", state="running")["value"]["jobs"]
        )
        after = whole_names(daemon)
        assert after == [there] or not accepted
        (here,) = after
        there = "b" if here == "a" else "a"
        assert daemon.ask("model.resolve", name=here)["type"] == "result"
        assert daemon.ask("model.resolve", name=there)["code"] == "not_found"
    pytest.fail("the daemon dies each time")
