"""Events to a hundred watchers at 500 a second, beside redis pub/sub: how far the last watcher is behind the first."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bench.answers import redis
from bench.daemon import Bench, daemon
from bench.table import header, median, row

WATCHERS = 100
EVENTS = 2000
PER_SECOND = 500
ROUNDS = 3
EVENTS_OF_A_JOB = 3
"""queued, started, failed: the cheapest way to make the daemon record events."""


def build_watch(room: str) -> str:
    made = os.path.join(room, "watch")
    subprocess.run(["cc", "-O2", "-o", made, os.path.join(os.path.dirname(__file__), "watch.c")], check=True)
    return made


@contextmanager
def watching(program: str, path: str, key: str, subscribe: str) -> Iterator[Callable[[], dict[str, float]]]:
    process = subprocess.Popen(
        [program, path, str(WATCHERS), str(EVENTS), key, subscribe], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)

    def outcome() -> dict[str, float]:
        found: dict[str, float] = json.loads(process.communicate(timeout=60)[0])
        return found

    try:
        yield outcome
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def paced(count: int, per_second: float, step: Callable[[int], None]) -> None:
    began = time.perf_counter()
    for number in range(count):
        wait = began + number / per_second - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        step(number)


def ours(bench: Bench, program: str) -> dict[str, float]:
    subscribe = '{"id":"w","op":"events.subscribe"}'
    with watching(program, bench.socket, '"seq":', subscribe) as outcome, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(bench.socket)
        lines = connection.makefile("rwb")
        lines.readline()

        def fail_once(number: int) -> None:
            request = {"id": str(number), "op": "model.add", "path": f"/nonexistent/{number}", "name": "none"}
            lines.write(json.dumps(request).encode() + b"\n")
            lines.flush()
            while b'"type":"error"' not in lines.readline():
                pass

        paced(EVENTS // EVENTS_OF_A_JOB + 2, PER_SECOND / EVENTS_OF_A_JOB, fail_once)
        return outcome()


def theirs(path: str, program: str) -> dict[str, float]:
    with watching(program, path, '"seq":', "SUBSCRIBE events") as outcome, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        padding = "x" * 180

        def publish(number: int) -> None:
            payload = f'{{"seq":{number + 1},"event":"job.queued","padding":"{padding}"}}'
            connection.sendall(f"*3\r\n$7\r\nPUBLISH\r\n$6\r\nevents\r\n${len(payload)}\r\n{payload}\r\n".encode())
            connection.recv(64)

        paced(EVENTS + 2, PER_SECOND, publish)
        return outcome()


def main(_: Sequence[str]) -> None:
    room = tempfile.mkdtemp(prefix="modeld-bench-")
    program = build_watch(room)
    header()
    with daemon() as bench, redis(room) as redis_socket:
        mine: list[dict[str, float]] = []
        redis_figures: list[dict[str, float]] = []
        for _turn in range(ROUNDS):
            mine.append(ours(bench, program))
            if redis_socket:
                redis_figures.append(theirs(redis_socket, program))
        for key in ("p50_us", "p99_us"):
            figure = median([found[key] for found in mine])
            reference = median([found[key] for found in redis_figures]) if redis_figures else 0.0
            what = f"{WATCHERS} watchers, {PER_SECOND}/s, {key[:3]} behind the first"
            if not reference:
                row(what, f"{figure:.0f} us", "redis is not installed", None, "", met=None)
            elif key == "p99_us":
                ratio = figure / reference
                row(what, f"{figure:.0f} us", f"redis {reference:.0f} us", ratio, "<= 1.50 x redis", met=ratio <= 1.5)
            else:
                row(what, f"{figure:.0f} us", f"redis {reference:.0f} us", figure / reference, "", met=None)
    shutil.rmtree(room, ignore_errors=True)
