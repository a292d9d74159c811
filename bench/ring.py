"""What the buffers between reading, writing and hashing cost, by their number and size.

    python bench/ring.py [--size 1GiB] [--rounds 5] [--directory DIR]

The choice in `modeld.store.blobs.hashing` rests on this table. Each round runs every ring once, in random order, on new
content: a disk that becomes slower for a while does so for all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

from bench.adding import Ours, Source
from bench.timed import REFERENCE, Row, command, print_rows
from modeld.store.blobs import hashing
from modelwire.limits import MIB
from modelwire.units import parse_size

RINGS = [(2, 4), (3, 4), (4, 4), (4, 2), (3, 2), (2, 2), (6, 1), (3, 1)]
"""Buffers, and MiB of each."""


@contextlib.contextmanager
def ring_of(buffers: int, chunk: int) -> Iterator[None]:
    before = hashing.COPY_BUFFERS, hashing.READ_BUFFERS, hashing.CHUNK
    hashing.COPY_BUFFERS = hashing.READ_BUFFERS = buffers
    hashing.CHUNK = chunk * MIB
    try:
        yield
    finally:
        hashing.COPY_BUFFERS, hashing.READ_BUFFERS, hashing.CHUNK = before


def timed_with(run: Callable[[], None], buffers: int, chunk: int) -> Callable[[], None]:
    def timed() -> None:
        with ring_of(buffers, chunk):
            run()

    return timed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What the buffers of the hash cost, by their number and size.")
    parser.add_argument("--size", type=parse_size, default=1 << 30, help="of the file: 1GiB, 512MiB (default 1GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each ring (default 5)")
    parser.add_argument("--directory", default=None, help="on the filesystem to measure (default: the temporary one)")
    options = parser.parse_args(arguments)
    directory = tempfile.mkdtemp(prefix="modeld-bench-", dir=options.directory)
    try:
        source = Source(f"{directory}/source", options.size)
        ours = Ours(f"{directory}/root", source)

        def new_content() -> None:
            ours.forget()
            source.renew()

        reference = Row(REFERENCE, lambda: command("openssl", "dgst", "-sha256", source.path))
        adds: list[Row] = []
        agains: list[Row] = []
        for buffers, chunk in RINGS:
            shape = f"{buffers} x {chunk} MiB"
            adds.append(Row(f"add, {shape}", timed_with(ours.add, buffers, chunk), "≤ 0.85 (CPU ≤ 1.35)"))
            agains.append(Row(f"again, {shape}", timed_with(ours.add_again, buffers, chunk), "≤ 0.85"))
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            reference.measure()
            for add, again in random.sample(list(zip(adds, agains, strict=True)), len(adds)):
                new_content()
                add.measure()
                again.measure()
        print(f"{options.size / (1 << 30):g} GiB, medians of {options.rounds}, {os.cpu_count()} processors")
        print_rows([reference, *adds, *agains])
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
