"""A model is shown with its place, and an estimate of the memory that it takes."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from modeld.operations.described import described
from modeld.store.manifests.models import Kept
from modelwire.knowledge.document import built
from modelwire.knowledge.node_state import CATALOGUE_STATES
from modelwire.requests import ModelShow
from modelwire.values import CacheLayers, EstimatedVram, ModelFacts, ModelView
from modelwire.vocabulary import CacheType, ModelState

DIGITS = "ab" * 32
FACTS = ModelFacts(
    format="gguf",
    architecture="llama",
    name="Llama",
    license="llama3",
    parameters=8_000_000_000,
    quantization="Q4_K_M",
    tensor_bytes=1 << 30,
    context_length=8192,
    cache=(CacheLayers(layers=32, keys=1024, values=1024),),
)


def view(**changes: Any) -> ModelView:
    usual: dict[str, Any] = {
        "name": "llama:8b",
        "format": "gguf",
        "blob": f"sha256:{DIGITS}",
        "size_bytes": 7,
        "state": "ready",
        "path": "/m",
        "verified_at": "2026-02-02T00:00:00.000Z",
        "facts": FACTS,
        "model": msgspec.to_builtins(built("llama-8b", "Llama", "llm")),
    }
    return ModelView(**usual | changes)


def shown(**changes: Any) -> ModelView:
    return described(view(**changes), ModelShow(name="llama:8b"), Kept())


def test_the_file_name() -> None:
    assert shown().file_name == "llama-8b-1_0_0-q4_k_m.gguf"


@pytest.mark.parametrize(
    ("state", "changes", "node", "catalogue"),
    [
        ("ready", {}, ("ready", "/m", 1.0, None), "active"),
        ("loaded", {}, ("loaded", "/m", 1.0, None), "active"),
        ("suspect", {}, ("suspect", "/m", 1.0, None), "pending"),
        (
            "failed",
            {"path": None, "reason": "its blob is missing"},
            ("failed", None, 0.0, "its blob is missing"),
            "failed",
        ),
        ("available", {"path": None}, ("available", None, 0.0, None), "pending"),
        ("downloading", {"path": None}, ("downloading", None, 0.0, None), "pending"),
        ("downloading", {"path": None, "progress": 0.25}, ("downloading", None, 0.25, None), "pending"),
        ("unavailable", {"path": None}, ("unavailable", None, 0.0, None), "pending"),
    ],
)
def test_both_vocabularies(
    state: ModelState, changes: dict[str, Any], node: tuple[object, ...], catalogue: str
) -> None:
    made = shown(state=state, **changes)
    assert made.node is not None
    assert tuple(made.node[key] for key in ("status", "local_path", "download_progress", "error")) == node
    assert made.catalogue_state == catalogue


@pytest.mark.parametrize(("state", "error"), [("failed", "it is corrupt"), ("suspect", None), ("unavailable", None)])
def test_what_is_not_given_out_keeps_what_it_had(state: ModelState, error: str | None) -> None:
    reason, kept = error or "it has changed", Kept("/m", "2026-02-02T00:00:00.000Z")
    made = described(view(state=state, path=None, verified_at=None, reason=reason), ModelShow(name="m"), kept)
    assert (made.path, made.verified_at) == (None, None)
    assert made.node == {
        "model_id": "llama-8b",
        "status": state,
        "local_path": "/m",
        "download_progress": 1.0,
        "verified_at": "2026-02-02T00:00:00.000Z",
        "error": error,
    }


def test_each_state_has_one_of_the_other_vocabulary() -> None:
    assert set(CATALOGUE_STATES) == set(get_args(ModelState))


def test_the_estimates() -> None:
    assert shown().estimated_vram_mb == EstimatedVram(formula=4915, header=1024 + 1024, context=8192)
    request = ModelShow(name="m", context=4096, cache_type="q8_0")
    assert described(view(), request, Kept()).estimated_vram_mb == EstimatedVram(
        formula=4915, header=1024 + 272, context=4096, cache_type="q8_0"
    )
    opaque = ModelFacts(format="gguf", opaque="damaged")
    assert shown(facts=opaque).estimated_vram_mb == EstimatedVram()


@pytest.mark.parametrize("kind", get_args(CacheType))
def test_every_type_of_a_cache_has_its_bits(kind: CacheType) -> None:
    made = described(view(), ModelShow(name="m", cache_type=kind), Kept()).estimated_vram_mb
    assert made is not None
    assert made.header is not None
    assert made.header > 1024
