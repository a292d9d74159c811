"""Headers: a big vocabulary beside the format's own library, and the worst that a damaged header costs."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import numpy
from gguf import GGUFReader, GGUFWriter

from bench.table import header, median, row
from modeld.inspect.inspection import inspect

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from rigs.mutations import mutated, whole_headers

WORDS = 150_000
ROUNDS = 5
MUTATIONS = 50_000
WEIGHED = 2_000
"""Tracing memory is slow: so many of the mutations are weighed."""

MIB = 1 << 20


def vocabulary(path: Path) -> None:
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{number:06d}" for number in range(WORDS)])
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * WORDS)
    writer.add_token_merges([f"a{number} b{number}" for number in range(WORDS)])
    writer.add_tensor("t", numpy.zeros((32, 32), numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def inspected(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        inspect(descriptor, os.fstat(descriptor).st_size, path.name)
    finally:
        os.close(descriptor)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def big_vocabulary(room: Path) -> None:
    vocabulary(path := room / "big.gguf")
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: inspected(path)))
        theirs.append(seconds(lambda: GGUFReader(path)))
    mine = median(ours)
    row(
        f"a vocabulary of {WORDS}",
        f"{mine * 1000:.0f} ms",
        f"gguf {median(theirs) * 1000:.0f} ms",
        mine / median(theirs),
        "<= 200 ms",
        met=mine <= 0.2,
    )
    weight = peak(lambda: inspected(path))
    row("its memory", f"{weight / MIB:.1f} MiB", "", None, "<= 64 MiB", met=weight <= 64 * MIB)


def damaged(room: Path) -> None:
    chance, whole, path = random.Random(3), whole_headers(room), room / "damaged.gguf"
    longest, heaviest = 0.0, 0
    for number in range(MUTATIONS):
        path.write_bytes(mutated(chance, whole))
        longest = max(longest, seconds(lambda: inspected(path)))
        if number < WEIGHED:
            heaviest = max(heaviest, peak(lambda: inspected(path)))
    row(f"the slowest of {MUTATIONS} damaged", f"{longest * 1000:.1f} ms", "", None, "<= 50 ms", met=longest <= 0.05)
    row(f"the heaviest of {WEIGHED}", f"{heaviest / MIB:.1f} MiB", "", None, "<= 16 MiB", met=heaviest <= 16 * MIB)


def main(_arguments: Sequence[str]) -> None:
    header()
    with tempfile.TemporaryDirectory() as room:
        big_vocabulary(Path(room))
        damaged(Path(room))
