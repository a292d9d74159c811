"""The start-up of modelctl: whole processes, beside the interpreter of the same environment, in turns."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from bench.daemon import Bench, daemon, modelctl, private_environment
from bench.table import header, median, row
from modelclient import Client

ROUNDS = 40
COLD_ROUNDS = 5
FEW_ROUNDS = 10
OTHERS = (
    ("redis-cli", "--version"),
    ("ctr", "--version"),
    ("git", "--version"),
    ("skopeo", "--version"),
    ("rclone", "version"),
    ("hf", "version"),
)
VERBS: tuple[tuple[str, ...], ...] = (("list",), ("status",), ("jobs",), ("show", "small"), ("log", "-n", "5"))


def seconds(command: Sequence[str], environ: Mapping[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def in_turns(environ: Mapping[str, str], *commands: Sequence[str], rounds: int = ROUNDS) -> list[float]:
    """Medians, measured A B C A B C …"""
    found: list[list[float]] = [[] for _ in commands]
    for turn in range(rounds + 2):
        for command, times in zip(commands, found, strict=True):
            took = seconds(command, environ)
            if turn >= 2:
                times.append(took)
    return [median(times) for times in found]


def main(_: Sequence[str]) -> None:
    header()
    with daemon() as bench:
        small = bench.file("small", 4096)
        seconds([modelctl(), "add", small, "--name", "small", "-q"], bench.environ)
        fast_path(bench)
        verbs(bench)
        others(bench)
        unchanged(bench)
    cold_start()


def fast_path(bench: Bench) -> None:
    bare, path = in_turns(bench.environ, [sys.executable, "-c", "pass"], [modelctl(), "path", "small"])
    show("modelctl path small", path, "python -c pass", bare, 2.0)


def verbs(bench: Bench) -> None:
    for verb in VERBS:
        bare, took = in_turns(bench.environ, [sys.executable, "-c", "pass"], [modelctl(), *verb], rounds=FEW_ROUNDS)
        show(f"modelctl {' '.join(verb)}", took, "python -c pass", bare, 6.0)


def others(bench: Bench) -> None:
    for command in OTHERS:
        if shutil.which(command[0]):
            theirs, ours = in_turns(bench.environ, command, [modelctl(), "path", "small"], rounds=10)
            show("modelctl path small", ours, " ".join(command), theirs, None)


def unchanged(bench: Bench) -> None:
    """A file that was added before and has its device, inode, size and times still: nothing of it is read."""
    path = bench.file("big", 1 << 30)
    with Client(bench.socket, timeout=None) as client:
        client.add(path, name="big").result()
        took = []
        for number in range(FEW_ROUNDS):
            began = time.perf_counter()
            added = client.add(path, name=f"big{number}").result()
            took.append(time.perf_counter() - began)
            if not added.reused:
                raise RuntimeError("the file was copied again")
    again = median(took)
    row("add of an unchanged file of 1 GiB", f"{again * 1000:.1f} ms", "", None, "<= 70 ms", met=again <= 0.070)


def cold_start() -> None:
    """No daemon: the command starts one, waits until it is ready, and answers."""
    took: list[float] = []
    for _ in range(COLD_ROUNDS):
        room = tempfile.mkdtemp(prefix="modeld-bench-")
        environ = private_environment(room)
        try:
            took.append(seconds([modelctl(), "list"], environ))
        finally:
            subprocess.run([modelctl(), "stop"], env=environ, check=True, stdout=subprocess.DEVNULL)
            shutil.rmtree(room, ignore_errors=True)
    cold = median(took)
    row("modelctl list, no daemon running", f"{cold:.2f} s", "", None, "<= 0.6 s", met=cold <= 0.6)


def show(what: str, ours: float, reference: str, theirs: float, target: float | None) -> None:
    ratio = ours / theirs
    row(
        what,
        f"{ours * 1000:.1f} ms",
        f"{reference} {theirs * 1000:.1f} ms",
        ratio,
        f"<= {target:.1f} x" if target else "",
        met=ratio <= target if target else None,
    )


if __name__ == "__main__":
    os.environ.setdefault("LANG", "C.UTF-8")
    main(sys.argv[1:])
