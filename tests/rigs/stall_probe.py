"""How long a daemon keeps other clients waiting: run as a program, it is a client that asks again and again and reports
how long each answer took. A process of its own, so that the work of a test does not count."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rigs.real_daemon import TESTS, Wire

PAUSE = 0.003

FIRST = ("chrt", "-r", "1") if os.geteuid() == 0 and shutil.which("chrt") else ()
"""Before a command: it runs before all other work of the machine."""


@dataclass
class Waits:
    """In milliseconds; all of them once the probe has ended."""

    answers: int = 0
    p50: float = 0.0
    p99: float = 0.0
    longest: float = 0.0

    def __str__(self) -> str:
        return f"{self.answers:6} answers, p50 {self.p50:6.2f} ms, p99 {self.p99:7.2f} ms, max {self.longest:8.2f} ms"


@contextmanager
def probed(socket: str, op: str = "daemon.status", **fields: object) -> Iterator[Waits]:
    """The waits of another client during the block."""
    waits = Waits()
    command = [*FIRST, sys.executable, __file__, socket, json.dumps({"id": "1", "op": op, **fields})]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": TESTS}
    ) as probe:
        assert probe.stdin is not None
        assert probe.stdout is not None
        assert probe.stdout.readline() == "asking\n"
        try:
            yield waits
        finally:
            probe.stdin.close()
            found = sorted(json.loads(probe.stdout.readline()))
    waits.answers = len(found)
    waits.p50, waits.p99 = found[len(found) // 2], found[min(len(found) * 99 // 100, len(found) - 1)]
    waits.longest = found[-1]


def _main(socket: str, line: str) -> None:
    waits: list[float] = []
    with Wire(socket, 300) as wire:
        assert wire.read()["type"] == "hello"
        data = line.encode() + b"\n"
        while not (waits and select.select([sys.stdin], [], [], PAUSE)[0]):
            began = time.perf_counter()
            wire.send(data)
            wire.terminal("1")
            waits.append((time.perf_counter() - began) * 1000)
            if len(waits) == 1:
                print("asking", flush=True)
    print(json.dumps(waits), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
