"""Block checksums find the damaged ranges, and a bad file of them counts as none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from modeld.store.blobs.block_checksums import BLOCK, BlockSummer, BlockSums, load_blocks, save_blocks
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout

DIGEST = Digest("ab" * 32)


def sums_of(content: bytes, *pieces: int) -> tuple[int, ...]:
    summer, view = BlockSummer(), memoryview(content)
    for piece in pieces:
        summer.update(view[:piece])
        view = view[piece:]
    summer.update(view)
    return summer.finish()


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(BLOCK // 16) * 33


@pytest.fixture
def stored(tmp_path: Path, content: bytes) -> Iterator[int]:
    path = tmp_path / "content"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def test_one_checksum_for_each_16_mib(content: bytes) -> None:
    expected = tuple(xxhash.xxh3_64_intdigest(content[at : at + BLOCK]) for at in range(0, len(content), BLOCK))
    assert len(expected) == 3
    assert sums_of(content) == expected


@pytest.mark.parametrize("pieces", [(1,), (BLOCK,), (BLOCK - 1, 2), (0, BLOCK + 1, 0), (BLOCK * 2,)])
def test_the_pieces_do_not_matter(content: bytes, pieces: tuple[int, ...]) -> None:
    assert sums_of(content, *pieces) == sums_of(content)


def test_nothing_has_no_blocks() -> None:
    assert sums_of(b"") == ()


def test_saved_and_loaded(tmp_path: Path, content: bytes) -> None:
    layout = Layout(str(tmp_path))
    os.makedirs(layout.staging)
    block_sums = BlockSums(len(content), sums_of(content))
    save_blocks(layout, DIGEST, block_sums)
    assert load_blocks(layout, DIGEST) == block_sums
    assert os.listdir(layout.staging) == []


def test_absent_and_unwritable_are_no_errors(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "absent"))
    assert load_blocks(layout, DIGEST) is None
    save_blocks(layout, DIGEST, BlockSums(0, ()))
    assert load_blocks(layout, DIGEST) is None


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "longer"])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, content: bytes, damage: str) -> None:
    layout = Layout(str(tmp_path))
    os.makedirs(layout.staging)
    save_blocks(layout, DIGEST, BlockSums(len(content), sums_of(content)))
    path = Path(layout.blocks(DIGEST))
    good = path.read_bytes()
    bad = {
        "torn": good[:-3],
        "flipped": good[:40] + bytes([good[40] ^ 1]) + good[41:],
        "empty": b"",
        "longer": good + b"\0",
    }[damage]
    path.chmod(0o600)
    path.write_bytes(bad)
    assert load_blocks(layout, DIGEST) is None
