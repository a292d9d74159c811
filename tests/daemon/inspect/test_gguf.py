"""A GGUF file of any kind says how long it must be, and no header makes the reader fail or run away."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import gguf as reference
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.inspect import gguf
from rigs.tiny_gguf import write_tiny_llama


def needed(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return gguf.needed_bytes(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def test_a_real_file_needs_what_it_has(tmp_path: Path) -> None:
    (path,) = write_tiny_llama(tmp_path / "tiny.gguf")
    assert path.stat().st_size - 32 < needed(path) <= path.stat().st_size


def test_each_shard_of_a_set_needs_what_it_has(tmp_path: Path) -> None:
    for path in write_tiny_llama(tmp_path / "tiny.gguf", shards=3):
        assert path.stat().st_size - 32 < needed(path) <= path.stat().st_size


def test_the_blocks_are_those_of_the_format() -> None:
    theirs = {int(kind): sizes for kind, sizes in reference.GGML_QUANT_SIZES.items()}
    assert {kind: theirs[kind] for kind in gguf.BLOCKS if kind in theirs} == {
        kind: sizes for kind, sizes in gguf.BLOCKS.items() if kind in theirs
    }
    assert len(gguf.BLOCKS.keys() & theirs.keys()) > 25


def test_a_file_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    tensor = struct.pack(">Q", 1) + b"t" + struct.pack(">IQIQ", 1, 64, 0, 0)
    path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 1, 0) + tensor + bytes(300))
    header = 24 + len(tensor)
    assert needed(path) == -(-header // 32) * 32 + 64 * 4


@pytest.mark.parametrize("keep", [24, 60, 1000])
def test_a_file_that_ends_within_its_header_is_cut_off(tmp_path: Path, keep: int) -> None:
    (path,) = write_tiny_llama(tmp_path / "tiny.gguf")
    os.truncate(path, keep)
    with pytest.raises(gguf.Truncated):
        needed(path)


@given(tail=st.binary(max_size=300), version=st.integers(0, 4), counts=st.tuples(*[st.integers(0, 2**64 - 1)] * 2))
def test_no_header_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, version: int, counts: tuple[int, int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, *counts) + tail)
    with contextlib.suppress(gguf.Unreadable, gguf.Truncated):
        assert needed(path) >= 0


def test_counts_beyond_reason_end_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60))
    os.truncate(path, 1 << 40)
    with pytest.raises(gguf.Unreadable):
        needed(path)
