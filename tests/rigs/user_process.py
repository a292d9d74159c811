"""A part that a test gives to a user: a function of a rig, run in a process of its own under a uid of its own.

The process loads all that it needs and then changes its user: the interpreter may lie where the other user may not go.
It plays until the test closes its standard input, and reports what it counted, how long it waited, and what it was
answered that must not be.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelclient.platform.posix import connect
from rigs.real_daemon import TESTS, RealDaemon, Wire

END_SECONDS = 120
"""For a part to end what it has begun. One that takes longer hangs."""


@dataclass
class Report:
    counts: Counter[str] = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """In milliseconds, by what was waited for."""

    jobs: list[str] = field(default_factory=list)
    """Those that were answered with a result."""


class Part:
    """What a part knows of the test, and what it reports to it."""

    def __init__(self, path: str, uid: int, given: Mapping[str, Any]) -> None:
        self.path = path
        self.uid = uid
        self.given = given
        self.report = Report()

    def over(self, pause: float = 0.0) -> bool:
        """Whether the test has ended this part; waits so many seconds for it."""
        return bool(select.select([sys.stdin], [], [], pause)[0])

    def connect(self, *, hello: bool = True) -> Wire:
        """As clients connect: a socket with a timeout of Python's fails instead of waiting while the queue is full."""
        wire = Wire.over(socket.socket(fileno=connect(self.path).detach()), END_SECONDS)
        if hello and (first := wire.read())["type"] != "hello":
            wire.close()
            raise ConnectionRefusedError(first["message"])
        return wire

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.report.waits[what].append((time.perf_counter() - began) * 1000)

    def expect(self, what: str, reply: Mapping[str, Any], *codes: str) -> None:
        """One of these codes, where the code of a result is `result`."""
        code = str(reply.get("code", reply["type"]))
        self.report.counts[f"{what}: {code}"] += 1
        if code not in codes:
            self.report.wrongs.append(f"{what}: {reply}")


class Playing:
    """A part that is played, seen from the test."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self.process = process

    def tell_to_end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
            self.process.stdin = None  # `communicate` would use it

    def end(self) -> Report:
        self.tell_to_end()
        try:
            out, _ = self.process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end") from None
        assert self.process.returncode == 0, f"{self.name} ended with {self.process.returncode}"
        found = json.loads(out)
        return Report(Counter(found["counts"]), found["wrongs"], found["waits"], found["jobs"])

    def kill(self) -> None:
        self.tell_to_end()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def playing(
    daemon: RealDaemon, function: str, uid: int, *, prefix: Sequence[str] = (), **given: Any
) -> Iterator[Playing]:
    """`function` as in `rigs.attackers:hold_connections`. What it prints is an error."""
    command = [*prefix, sys.executable, __file__, function, daemon.socket, str(uid), json.dumps(given)]
    environ = daemon.environ | {"PYTHONPATH": TESTS}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, cwd=daemon.room
    )
    part = Playing(function.partition(":")[2], process)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "playing\n", f"{part.name} did not begin"
        yield part
    finally:
        part.kill()


def _main(function: str, path: str, uid: int, given: str) -> None:
    module, _, name = function.partition(":")
    play = getattr(importlib.import_module(module), name)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    part = Part(path, uid, json.loads(given))
    print("playing", flush=True)
    play(part)
    made = part.report
    print(json.dumps({"counts": made.counts, "wrongs": made.wrongs[:20], "waits": made.waits, "jobs": made.jobs}))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
