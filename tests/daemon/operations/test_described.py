"""A model is shown with its document, its place, and an estimate of the memory that it takes."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from modeld.operations.described import described
from modelwire.knowledge.document import built
from modelwire.knowledge.node_state import CATALOGUE_STATES
from modelwire.requests import ModelShow
from modelwire.values import CacheLayers, EstimatedVram, ModelFacts, ModelFile, ModelView, Provenance
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
        "produced_at": "2026-01-01T00:00:00Z",
        "verified_at": "2026-02-02T00:00:00.000Z",
        "source": Provenance(registry="hf", repo="org/llama", revision="0" * 40, filename="m.gguf"),
        "facts": FACTS,
    }
    return ModelView(**usual | changes)


def shown(**changes: Any) -> ModelView:
    return described(view(**changes), ModelShow(name="llama:8b"))


def document_of(**changes: Any) -> dict[str, Any]:
    document = shown(**changes).model
    assert document is not None
    return document


def test_the_facts_of_the_header_come_before_what_is_usual() -> None:
    document = document_of()
    assert {key: document[key] for key in ("model_id", "name", "model_type", "format", "quantization")} == {
        "model_id": "llama:8b",
        "name": "Llama",
        "model_type": "llm",
        "format": "gguf",
        "quantization": "Q4_K_M",
    }
    assert (document["params_billions"], document["context_length"]) == (8.0, 8192)
    assert (document["size_bytes"], document["sha256"], document["license"]) == (7, DIGITS, "llama3")
    assert (document["version"], document["source"]) == ("1.0.0", "hf org/llama m.gguf")
    assert document["created_at"] == "2026-01-01T00:00:00Z"
    assert shown().file_name == "llama:8b-1_0_0-q4_k_m.gguf"


def test_nothing_is_claimed_that_nobody_said() -> None:
    document = document_of(facts=None, format="unknown", source=None, produced_at=None)
    assert (document["quantization"], document["license"], document["source"]) == ("", "", "")
    assert document["model_type"] == "custom"
    assert "params_billions" not in document
    assert shown(facts=None).estimated_vram_mb is None


@pytest.mark.parametrize(
    ("architecture", "kind", "expected"),
    [
        ("llama", None, "llm"),
        ("llama", "model", "llm"),
        ("llama", "adapter", "custom"),
        ("clip", "mmproj", "custom"),
        ("nomic-bert", None, "embedder"),
        ("whisper", None, "whisper"),
        (None, None, "custom"),
    ],
)
def test_the_type_of_a_model(architecture: str | None, kind: str | None, expected: str) -> None:
    facts = ModelFacts(format="gguf", architecture=architecture, kind=kind)
    assert document_of(facts=facts)["model_type"] == expected


WRITTEN = built("mine", "Mine", "vlm", size_bytes=99, sha256="cd" * 32, features=("chat",))


def test_the_document_of_the_manifest_counts_but_for_what_the_blob_proves() -> None:
    block = msgspec.to_builtins(WRITTEN)
    document = document_of(manifest={"model": block})
    assert (document["model_id"], document["model_type"], list(document["features"])) == ("mine", "vlm", ["chat"])
    assert (document["size_bytes"], document["sha256"]) == (7, DIGITS)
    assert shown(manifest={"model": block}).node == {
        "model_id": "mine",
        "status": "ready",
        "local_path": "/m",
        "download_progress": 1.0,
        "verified_at": "2026-02-02T00:00:00.000Z",
        "error": None,
    }


@pytest.mark.parametrize("block", [None, 7, [], {}, {"model_id": "x"}, msgspec.to_builtins(WRITTEN) | {"sha256": "no"}])
def test_a_block_that_cannot_be_read_is_as_good_as_none(block: Any) -> None:
    assert document_of(manifest={"model": block})["model_id"] == "llama:8b"


def test_size_and_digest_are_those_of_the_blob_that_stands_for_the_model() -> None:
    files = (
        ModelFile(path="a", blob="sha256:" + "01" * 32, size_bytes=3),
        ModelFile(path="b", blob=f"sha256:{DIGITS}", size_bytes=4),
    )
    assert document_of(files=files)["size_bytes"] == 4


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


def test_each_state_has_one_of_the_other_vocabulary() -> None:
    assert set(CATALOGUE_STATES) == set(get_args(ModelState))


def test_the_estimates() -> None:
    assert shown().estimated_vram_mb == EstimatedVram(formula=4915, header=1024 + 1024, context=8192)
    request = ModelShow(name="m", context=4096, cache_type="q8_0")
    assert described(view(), request).estimated_vram_mb == EstimatedVram(
        formula=4915, header=1024 + 272, context=4096, cache_type="q8_0"
    )
    opaque = ModelFacts(format="gguf", opaque="damaged")
    assert shown(facts=opaque).estimated_vram_mb == EstimatedVram()


@pytest.mark.parametrize("kind", get_args(CacheType))
def test_every_type_of_a_cache_has_its_bits(kind: CacheType) -> None:
    made = described(view(), ModelShow(name="m", cache_type=kind)).estimated_vram_mb
    assert made is not None
    assert made.header is not None
    assert made.header > 1024
