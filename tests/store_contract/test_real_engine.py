"""A real llama.cpp loads what `modelctl path` prints: the reason why all of this exists."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from modelwire.knowledge import estimates
from modelwire.values import ModelFacts
from modelwire.vocabulary import CacheType
from rigs.llama_engine import TOKENS, cache_bytes, generated_tokens
from rigs.tiny_gguf import write_tiny_llama
from store_contract.conftest import Ctl


def test_an_engine_loads_what_path_prints_and_generates(room: Path, ctl: Ctl) -> None:
    (source,) = write_tiny_llama(room / "tiny.gguf")
    assert ctl("add", str(source)).returncode == 0
    source.unlink()
    assert generated_tokens(ctl.path("tiny")) == TOKENS


def test_an_engine_loads_a_set_of_three_shards_by_its_tree(room: Path, ctl: Ctl) -> None:
    shards = write_tiny_llama(room / "tiny.gguf", shards=3)
    assert len(shards) == 3
    added = ctl.json("add", str(shards[1]))
    assert [file["path"] for file in added["files"]] == [shard.name for shard in shards]
    for shard in shards:
        shard.unlink()
    tree = ctl.path(added["name"])
    assert sorted(os.listdir(tree)) == [shard.name for shard in shards]
    assert generated_tokens(os.path.join(tree, shards[0].name)) == TOKENS
    assert generated_tokens(ctl.path(added["name"], "--file", shards[0].name)) == TOKENS
    # Its own name in the store says nothing of the other parts: a blob alone is no model.
    assert generated_tokens(os.path.realpath(ctl.json("show", added["name"])["path"])) == 0


def test_an_engine_loads_a_linked_and_a_moved_model(room: Path, ctl: Ctl) -> None:
    (source,) = write_tiny_llama(room / "tiny.gguf")
    assert ctl("add", str(source), "--link", "--name", "linked").returncode == 0
    assert generated_tokens(ctl.path("linked")) == TOKENS
    shards = write_tiny_llama(room / "moved.gguf", shards=3)
    assert ctl("add", str(shards[0]), "--move", "--name", "moved").returncode == 0
    assert not any(shard.exists() for shard in shards)
    assert generated_tokens(ctl.path("moved", "--file", shards[0].name)) == TOKENS


@pytest.mark.parametrize(
    ("layers", "kv_heads", "window", "context", "cache_type"),
    [
        (8, 2, None, 4096, "f16"),
        (8, 1, None, 5000, "f16"),
        (8, 2, None, 4096, "f32"),
        (12, 2, 512, 16_384, "f16"),
        (12, 1, 1024, 3000, "f16"),
        (13, 2, 4096, 2048, "f16"),
    ],
)
def test_an_engine_takes_the_cache_that_the_header_lets_expect(
    room: Path, ctl: Ctl, layers: int, kv_heads: int, window: int | None, context: int, cache_type: CacheType
) -> None:
    (source,) = write_tiny_llama(room / "tiny.gguf", layers=layers, kv_heads=kv_heads, context=1 << 17, window=window)
    facts = msgspec.convert(ctl.json("add", str(source)) and ctl.json("show", "tiny")["facts"], ModelFacts)
    expected = estimates.cache_bytes(facts.cache, context, cache_type)
    # Its log has two digits after the point.
    assert abs(cache_bytes(ctl.path("tiny"), context, cache_type) - expected) <= 2 * 0.005 * (1 << 20)
