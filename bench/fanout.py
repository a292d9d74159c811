"""Events to a hundred watchers at 500 a second, beside redis pub/sub: from the cause until each watcher has it.

The cause is one small request on an open connection on both sides: PUBLISH there, here the change of a setting, which
records one event and does no other work.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from bench.answers import redis
from bench.daemon import daemon
from bench.table import header, median, row

WATCHERS = 100
EVENTS = 2000
PER_SECOND = 500
ROUNDS = 5
PAYLOAD = 200
MARK = "daemon.configured"


def build_watch(room: str) -> str:
    made = os.path.join(room, "watch")
    subprocess.run(["cc", "-O2", "-o", made, os.path.join(os.path.dirname(__file__), "watch.c")], check=True)
    return made


def watch(program: str, path: str, mark: str, subscribe: str, trigger: str) -> dict[str, float]:
    figures = [str(WATCHERS), str(EVENTS), str(PER_SECOND)]
    command = [program, path, *figures, mark, subscribe, trigger]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    found: dict[str, float] = json.loads(text)
    return found


def ours(path: str, program: str) -> dict[str, float]:
    cause = '{"id":"c","op":"daemon.configure","max_rate":1000000000}\n'
    return watch(program, path, MARK, '{"id":"w","op":"events.subscribe"}', cause)


def theirs(path: str, program: str) -> dict[str, float]:
    payload = MARK + "x" * PAYLOAD
    publish = f"*3\r\n$7\r\nPUBLISH\r\n$6\r\nevents\r\n${len(payload)}\r\n{payload}\r\n"
    return watch(program, path, MARK, "SUBSCRIBE events", publish)


def main(_: Sequence[str]) -> None:
    room = tempfile.mkdtemp(prefix="modeld-bench-")
    program = build_watch(room)
    header()
    with daemon() as bench, redis(room) as redis_socket:
        mine: list[dict[str, float]] = []
        reference: list[dict[str, float]] = []
        for _turn in range(ROUNDS):
            mine.append(ours(bench.socket, program))
            if redis_socket:
                reference.append(theirs(redis_socket, program))
        for key, target in (("p50_us", None), ("p99_us", 1.5)):
            figure = median([found[key] for found in mine])
            what = f"{WATCHERS} watchers, {PER_SECOND} events/s, {key[:3]}"
            if not reference:
                row(what, f"{figure:.0f} us", "redis is not installed", None, "", met=None)
                continue
            redis_figure = median([found[key] for found in reference])
            ratio = figure / redis_figure
            bound = f"<= {target:.2f} x redis" if target else ""
            row(
                what,
                f"{figure:.0f} us",
                f"redis {redis_figure:.0f} us",
                ratio,
                bound,
                met=ratio <= target if target else None,
            )
    shutil.rmtree(room, ignore_errors=True)
