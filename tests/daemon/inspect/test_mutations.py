"""Damaged headers of both formats: each is read, or raises the readers' own error, and no file has an effect beyond."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from modeld.inspect import gguf, safetensors
from modeld.inspect.header import Unreadable
from modeld.inspect.inspection import inspect
from rigs.mutations import mutated, whole_headers
from rigs.rough_peers import scaled

COUNT = scaled(50_000, 5_000)


def read_all(path: Path, content: bytes) -> bool:
    """Everything that can be read of the file; whether it is readable."""
    path.write_bytes(content)
    descriptor, size = os.open(path, os.O_RDONLY), len(content)
    try:
        for name in ("m.gguf", "m.safetensors", "m"):
            inspect(descriptor, size, name)
        try:
            if content[:1] == b"G":
                header = gguf.read(descriptor, size)
                header.values(descriptor, size, header.fields)
                list(header.tensors(descriptor, size))
            else:
                safetensors.read(descriptor, size)
        except Unreadable:
            return False
        return True
    finally:
        os.close(descriptor)


def run(tmp_path: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    whole = whole_headers(tmp_path)
    readable = sum(read_all(tmp_path / "mutated", mutated(chance, whole)) for _ in range(count))
    assert count // 20 < readable < count, "some mutations are harmless, and some are not"


def test_damaged_headers_raise_only_the_readers_own_error(tmp_path: Path) -> None:
    run(tmp_path, 1_000, 1)


@pytest.mark.torture
def test_very_many_damaged_headers(tmp_path: Path) -> None:
    run(tmp_path, COUNT, 2)
