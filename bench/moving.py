"""The move of a store beside a plain copy of its bytes, and how long clients wait meanwhile: readers and writers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from statistics import median

from bench.answers import REQUEST, add, build_load, load
from bench.daemon import Bench, daemon, modelctl
from bench.scale import populate
from bench.table import header, row, row_of_waits

ROUNDS = 5
FILES = 4
SIZE = 512 << 20
MODELS = 10_000


def move(bench: Bench, target: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [modelctl(), "store", "move", target, "-q"], env=bench.environ, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def drop(bench: Bench) -> None:
    subprocess.run(
        [modelctl(), "store", "move", "--drop-old", "-q"], env=bench.environ, check=True, stdout=subprocess.DEVNULL
    )


def copied(source: str, target: str) -> float:
    """All bytes, and durable."""
    began = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    subprocess.run(["sync", "-f", target], check=True)
    took = time.perf_counter() - began
    shutil.rmtree(target)
    return took


def big_files(program: str) -> None:
    with daemon() as bench:
        for number in range(FILES):
            add(bench, bench.file(f"big{number}", SIZE + number), f"big{number}")
        add(bench, bench.file("small", 4096), "small")
        load(program, bench.socket, 1, 1, 5000, 1, REQUEST)
        alone = load(program, bench.socket, 1, 1, 50_000, 1, REQUEST)
        copies, moves, waits = [], [], []
        for number in range(ROUNDS):
            root = os.path.realpath(os.path.join(bench.room, "models"))
            copies.append(copied(os.path.join(root, "blobs"), os.path.join(bench.room, "copy")))
            moving = threading.Thread(
                target=lambda target: moves.append(move(bench, target)), args=(os.path.join(bench.room, f"n{number}"),)
            )
            moving.start()
            while moving.is_alive():
                waits.append(load(program, bench.socket, 1, 1, 5_000, 1, REQUEST)["p99_us"])
            moving.join()
            drop(bench)
        ratio = median(ours / theirs for ours, theirs in zip(moves, copies, strict=True))
        size = FILES * SIZE / (1 << 30)
        row(
            f"a move of {size:.0f} GiB",
            f"{median(moves):.2f} s",
            f"cp and sync {median(copies):.2f} s",
            ratio,
            "<= 1.50",
            met=ratio <= 1.5,
        )
        row_of_waits(waits, alone["p99_us"])


def many_models() -> None:
    room = tempfile.mkdtemp(prefix="modeld-bench-")
    root = os.path.join(room, "models")
    populate(root, MODELS, MODELS)
    with daemon({"MODELS_HOME": root}) as bench:
        waits: list[float] = []
        moving = threading.Thread(target=move, args=(bench, os.path.join(room, "new")))
        began = time.perf_counter()
        moving.start()
        while moving.is_alive():
            asked = time.perf_counter()
            for verb in ("pin", "unpin"):
                command = [modelctl(), verb, "model-000000", "-q"]
                subprocess.run(command, env=bench.environ, check=True, stdout=subprocess.DEVNULL)
            waits.append((time.perf_counter() - asked) / 2)
        took = time.perf_counter() - began
        moving.join()
        row(
            f"the longest wait of a writer, {MODELS} models",
            f"{max(waits):.2f} s",
            f"the whole move {took:.2f} s",
            max(waits) / took,
            "<= 5 s",
            met=max(waits) <= 5,
        )
    shutil.rmtree(room, ignore_errors=True)


def main(_: Sequence[str]) -> None:
    room = tempfile.mkdtemp(prefix="modeld-bench-")
    program = build_load(room)
    header()
    big_files(program)
    many_models()
    shutil.rmtree(room, ignore_errors=True)
