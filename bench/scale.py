"""A store of 100,000 blobs and 10,000 models beside a store of one model; and what an idle daemon costs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence

from bench.answers import ROUNDS, build_load, in_turns, load, of
from bench.daemon import Bench, daemon, modelctl
from bench.table import header, median, row

BLOBS = 100_000
MODELS = 10_000
IDLE_SECONDS = 10


def populate(root: str, blobs: int, models: int) -> None:
    """As another tool of the same layout would have left it: tiny blobs, manifests of the nine fields."""
    os.makedirs(os.path.join(root, "manifests"))
    for number in range(blobs):
        content = number.to_bytes(8, "little")
        digest = hashlib.sha256(content).hexdigest()
        directory = os.path.join(root, "blobs", "sha256", digest[:2], digest)
        os.makedirs(directory)
        with open(os.path.join(directory, "data"), "wb") as file:
            file.write(content)
        if number < models:
            write_manifest(root, f"model-{number:06d}", digest, len(content))


def write_manifest(root: str, name: str, digest: str, size: int) -> None:
    manifest = {
        "schema_version": 1,
        "name": name,
        "format": "bin",
        "blob": f"sha256:{digest}",
        "size_bytes": size,
        "license": None,
        "source": {"registry": "local", "repo": "", "revision": "", "filename": "x.bin"},
        "produced_by": "bench/1",
        "produced_at": "2026-01-01T00:00:00Z",
    }
    with open(os.path.join(root, "manifests", f"{name}.json"), "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
        file.write("\n")


def started(root: str) -> float:
    """From the start of the process until it says that it is ready."""
    began = time.perf_counter()
    with daemon({"MODELS_HOME": root}):
        return time.perf_counter() - began


def listed(bench: Bench) -> float:
    began = time.perf_counter()
    subprocess.run([modelctl(), "list", "-q"], env=bench.environ, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def idle(bench: Bench) -> tuple[float, float]:
    """MiB of memory, and how often a second the process woke up."""

    def switches() -> int:
        total = 0
        for task in os.listdir(f"/proc/{bench.pid}/task"):
            with open(f"/proc/{bench.pid}/task/{task}/status", encoding="ascii") as file:
                total += int(next(line for line in file if line.startswith("voluntary")).split()[1])
        return total

    time.sleep(2)
    before = switches()
    time.sleep(IDLE_SECONDS)
    woken = (switches() - before) / IDLE_SECONDS
    with open(f"/proc/{bench.pid}/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident / (1 << 20), woken


def main(_: Sequence[str]) -> None:
    room = tempfile.mkdtemp(prefix="modeld-bench-")
    program = build_load(room)
    large, small = os.path.join(room, "large"), os.path.join(room, "small")
    populate(small, 1, 1)
    populate(large, BLOBS, MODELS)
    header()
    with daemon({"MODELS_HOME": small}) as bench:
        resident, woken = idle(bench)
        row("idle daemon, resident memory", f"{resident:.1f} MiB", "", None, "<= 40 MiB", met=resident <= 40)
        row("idle daemon, wake-ups", f"{woken:.2f}/s", "endpoint check 0.20/s", None, "nothing else", met=woken <= 0.25)
    took = median([started(large) for _ in range(3)])
    row(f"ready with {BLOBS:,} blobs, {MODELS:,} models", f"{took:.2f} s", "", None, "<= 1.5 s", met=took <= 1.5)
    with daemon({"MODELS_HOME": large}) as big, daemon({"MODELS_HOME": small}) as little:
        first = listed(big)
        again = median([listed(big) for _ in range(5)])
        row(f"modelctl list -q of {MODELS:,}, the first", f"{first:.2f} s", "", None, "< 1 s", met=first < 1)
        row(f"modelctl list -q of {MODELS:,}, again", f"{again:.2f} s", "", None, "< 1 s", met=again < 1)
        many, one = in_turns(
            lambda: load(program, big.socket, 1, 1, 20000, 1, request("model-004711")),
            lambda: load(program, little.socket, 1, 1, 20000, 1, request("model-000000")),
        )
        ours, theirs = of(many, "p50_us"), of(one, "p50_us")
        what = f"resolve among {MODELS:,}, p50 of {ROUNDS}"
        ratio = ours / theirs
        row(what, f"{ours:.1f} us", f"one model {theirs:.1f} us", ratio, "<= 1.20 x", met=ratio <= 1.2)
    shutil.rmtree(room, ignore_errors=True)


def request(name: str) -> str:
    return json.dumps({"id": "1", "op": "model.resolve", "name": name})
