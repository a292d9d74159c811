"""A scrub of 20 GB beside clients that ask for paths: its rate, and how long they wait; and one without a limit beside
a plain read of the same blobs from the disk.

The 20 GB are holes in a file: reading them costs the daemon what any bytes do, and the disk nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from statistics import median

import xxhash

from bench.answers import REQUEST, add, build_load, load
from bench.daemon import Bench, daemon, modelctl
from bench.scale import write_manifest
from bench.table import header, row, row_of_waits
from modeld.store.blobs.block_checksums import BLOCK, BlockSums, save_blocks
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout

SPARSE = 20_000_000_000
RATE = 1_000_000_000
ROUNDS = 5
READ = 2 << 30


def plant_holes(root: str) -> None:
    """A blob of zeros with its checksums, as a model."""
    zeros, sha256 = memoryview(bytes(BLOCK)), hashlib.sha256()
    for at in range(0, SPARSE, BLOCK):
        sha256.update(zeros[: min(BLOCK, SPARSE - at)])
    layout, digest = Layout(root), Digest(sha256.hexdigest())
    os.makedirs(os.path.dirname(layout.blob(digest)))
    with open(layout.blob(digest), "wb") as file:
        file.truncate(SPARSE)
    full, rest = divmod(SPARSE, BLOCK)
    sums = [xxhash.xxh3_64_intdigest(zeros)] * full + ([xxhash.xxh3_64_intdigest(zeros[:rest])] if rest else [])
    save_blocks(layout, digest, BlockSums(SPARSE, tuple(sums)))
    write_manifest(root, "holes", digest.hex, SPARSE)


def scrub(bench: Bench) -> float:
    began = time.perf_counter()
    done = subprocess.run([modelctl(), "scrub", "-q", "--no-progress"], env=bench.environ, check=False)
    if done.returncode != 0:
        raise RuntimeError("the scrub has found something, or failed")
    return time.perf_counter() - began


def under_load(program: str) -> None:
    with daemon({"MODELD_SCRUB_RATE": str(RATE)}) as bench:
        plant_holes(os.path.join(bench.room, "models"))
        add(bench, bench.file("small", 4096), "small")
        load(program, bench.socket, 1, 1, 5000, 1, REQUEST)
        alone = load(program, bench.socket, 1, 1, 50_000, 1, REQUEST)
        took: list[float] = []
        scrubbing = threading.Thread(target=lambda: took.append(scrub(bench)))
        scrubbing.start()
        waits = []
        while scrubbing.is_alive():
            waits.append(load(program, bench.socket, 1, 1, 20_000, 1, REQUEST)["p99_us"])
            subprocess.run([modelctl(), "status", "--json"], env=bench.environ, check=True, stdout=subprocess.DEVNULL)
        scrubbing.join()
        rate = SPARSE / took[0]
        within = 0.9 <= rate / RATE <= 1.1
        row(
            "a scrub of 20 GB beside clients",
            f"{rate / 1e6:.0f} MB/s",
            f"limit {RATE / 1e6:.0f} MB/s",
            rate / RATE,
            "0.90 to 1.10",
            met=within,
        )
        row_of_waits(waits, alone["p99_us"])


def without_limit() -> None:
    with daemon({"MODELD_SCRUB_RATE": "none"}) as bench:
        add(bench, bench.file("big", READ), "big")
        path = subprocess.run(
            [modelctl(), "path", "big"], env=bench.environ, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        reads, scrubs = [], []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            subprocess.run(
                ["dd", f"if={path}", "of=/dev/null", "bs=2M", "iflag=direct"], check=True, stderr=subprocess.DEVNULL
            )
            reads.append(time.perf_counter() - began)
            scrubs.append(scrub(bench))
        ratio = median(ours / theirs for ours, theirs in zip(scrubs, reads, strict=True))
        row(
            "a scrub of 2 GiB without a limit",
            f"{median(scrubs):.2f} s",
            f"dd from the disk {median(reads):.2f} s",
            ratio,
            "<= 1.30",
            met=ratio <= 1.3,
        )


def main(_: Sequence[str]) -> None:
    room = tempfile.mkdtemp(prefix="modeld-bench-")
    program = build_load(room)
    header()
    under_load(program)
    without_limit()
    shutil.rmtree(room, ignore_errors=True)
