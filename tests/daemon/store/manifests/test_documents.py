"""A manifest has the document that describes its model: its own, or one made of the headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modeld.store.digest import Digest
from modeld.store.manifests import documents, index, model_facts
from modeld.store.manifests.manifests import Manifest
from modelwire.knowledge.document import ModelDocument, built, document_of
from modelwire.values import CacheLayers, ModelFacts, ModelView
from rigs.adding_rig import Bench
from rigs.tiny_gguf import write_tiny_llama

DIGITS = "ab" * 32
FACTS = ModelFacts(
    format="gguf",
    architecture="llama",
    name="Llama",
    license="llama3",
    parameters=8_000_000_000,
    quantization="Q4_K_M",
    context_length=8192,
    tokenizer="gpt2",
    vocabulary=128_256,
    chat_template=True,
    cache=(CacheLayers(layers=32, keys=1024, values=1024),),
)
WRITTEN = built("mine", "Mine", "vlm", size_bytes=99, sha256="cd" * 32, features=("chat",))


def manifest(**changes: Any) -> Manifest:
    usual: dict[str, Any] = {
        "schema_version": 1,
        "blob": f"sha256:{DIGITS}",
        "size_bytes": 7,
        "name": "llama:8b",
        "format": "gguf",
        "produced_at": "2026-01-01T00:00:00Z",
        "source": {"registry": "hf", "repo": "org/llama", "revision": "0" * 40, "filename": "m.gguf"},
    }
    return msgspec.json.decode(msgspec.json.encode(usual | changes), type=Manifest)


def describing(facts: ModelFacts | None = FACTS, **changes: Any) -> ModelDocument:
    return documents.describing(manifest(**changes), 7, facts)


def test_the_facts_of_the_header_come_before_what_is_usual() -> None:
    made = describing()
    assert (made.model_id, made.name, made.model_type, made.format) == ("llama:8b", "Llama", "llm", "gguf")
    assert (made.quantization, made.params_billions, made.context_length) == ("Q4_K_M", 8.0, 8192)
    assert (made.size_bytes, made.sha256, made.license) == (7, DIGITS, "llama3")
    assert (made.version, made.source, made.created_at) == ("1.0.0", "hf org/llama m.gguf", "2026-01-01T00:00:00Z")
    assert made.metadata == {
        "architecture": "llama",
        "tokenizer": "gpt2",
        "vocabulary": 128_256,
        "chat_template": True,
    }


def test_the_license_of_the_manifest_comes_before_that_of_the_header() -> None:
    assert describing(license="mit").license == "mit"


def test_nothing_is_claimed_that_nobody_said() -> None:
    made = describing(None, format="unknown", source=None, produced_at=None)
    assert (made.quantization, made.license, made.source, made.created_at) == ("", "", "", "")
    assert made.model_type == "custom"
    assert made.params_billions is made.context_length is made.metadata is msgspec.UNSET


def test_long_texts_of_a_header_are_cut() -> None:
    made = describing(ModelFacts(format="gguf", name="n" * 5000, license="l" * 5000, architecture="a" * 5000))
    assert len(msgspec.json.encode(made)) < 2000


@pytest.mark.parametrize(
    ("architecture", "kind", "expected"),
    [
        ("llama", None, "llm"),
        ("llama", "model", "llm"),
        ("llama", "vlm", "vlm"),
        ("llama", "adapter", "custom"),
        ("clip", "mmproj", "custom"),
        ("nomic-bert", None, "embedder"),
        ("whisper", None, "whisper"),
        (None, None, "custom"),
    ],
)
def test_the_type_of_a_model(architecture: str | None, kind: str | None, expected: str) -> None:
    assert describing(ModelFacts(format="gguf", architecture=architecture, kind=kind)).model_type == expected


def test_the_document_of_the_manifest_counts_but_for_what_the_blob_proves() -> None:
    made = describing(model=msgspec.to_builtins(WRITTEN))
    assert (made.model_id, made.model_type, made.features) == ("mine", "vlm", ("chat",))
    assert (made.size_bytes, made.sha256) == (7, DIGITS)


@pytest.mark.parametrize("block", [None, 7, [], {}, {"model_id": "x"}, msgspec.to_builtins(WRITTEN) | {"sha256": "no"}])
def test_a_block_that_cannot_be_read_is_as_good_as_none(block: Any) -> None:
    assert describing(model=block).model_id == "llama:8b"
    assert documents.contradiction(manifest(model=block), 7) is None


@pytest.mark.parametrize(
    ("claims", "shown"),
    [
        ({"sha256": DIGITS, "size_bytes": 7}, None),
        ({"sha256": "", "size_bytes": 0}, None),
        ({"sha256": "cd" * 32}, f"its document says that its SHA-256 is {'cd' * 32}; the blob counts"),
        ({"sha256": "", "size_bytes": 8}, "its document says that it has 8 bytes, it has 7; the blob counts"),
    ],
)
def test_a_contradiction_is_shown(claims: dict[str, Any], shown: str | None) -> None:
    block = msgspec.to_builtins(WRITTEN) | claims
    assert documents.contradiction(manifest(model=block), 7) == shown


def on_disk(bench: Bench, name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Path(bench.store.layout.manifests_dir, f"{name}.json").read_bytes())
    return data


async def listed(bench: Bench) -> dict[str, ModelView]:
    page = await bench.store.models.page(None, None, after=None, limit=100)
    return {view.name: view for view in page.models}


@pytest.fixture
async def tiny(bench: Bench) -> str:
    (path,) = write_tiny_llama(bench.directory / "tiny.gguf")
    await bench.store.add(str(path))
    return str(path)


async def test_a_publication_writes_what_the_header_says(bench: Bench, tiny: str) -> None:
    written = document_of(on_disk(bench, "tiny")["model"])
    assert (written.model_id, written.model_type, written.context_length) == ("tiny", "llm", 256)
    assert written.params_billions == 74_304 / 1e9
    assert f"sha256:{written.sha256}" == on_disk(bench, "tiny")["blob"]
    assert written.size_bytes == Path(tiny).stat().st_size


async def test_a_list_has_the_documents_and_opens_no_blob(
    bench: Bench, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.directory / "noise").write_bytes(b"noise")
    await bench.store.add(str(bench.directory / "noise"))
    by_another_tool = {key: value for key, value in on_disk(bench, "tiny").items() if key != "model"}
    Path(bench.store.layout.manifests_dir, "other.json").write_text(json.dumps(by_another_tool))

    def inspect(*_: object) -> None:
        raise AssertionError("a header is read")

    monkeypatch.setattr(model_facts, "inspect", inspect)
    views = await listed(bench)
    assert {name: document_of(view.model).context_length for name, view in views.items()} == {
        "noise": msgspec.UNSET,
        "other": 256,
        "tiny": 256,
    }


@pytest.mark.parametrize("bound", ["_DOCUMENTS", "_LONGEST_DOCUMENT"])
async def test_a_document_that_is_not_kept_is_read_again(
    bench: Bench, tiny: str, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(index, bound, 0)
    bench.reopen()
    (view,) = (await listed(bench)).values()
    assert document_of(view.model).context_length == 256
    entry = bench.store.index.seen("tiny")
    assert entry is not None
    assert bytes(entry.usable().model) == b""
    assert (await bench.store.models.show("tiny")).model == view.model


async def test_other_bytes_under_the_name_have_a_document_of_their_own(bench: Bench, tiny: str) -> None:
    before = document_of(on_disk(bench, "tiny")["model"])
    (path,) = write_tiny_llama(bench.directory / "other.gguf", context=512)
    await bench.store.add(str(path), name="tiny", replace=True)
    after = document_of(on_disk(bench, "tiny")["model"])
    assert (before.context_length, after.context_length) == (256, 512)
    assert before.sha256 != after.sha256


async def test_an_id_stands_for_one_model(bench: Bench, tiny: str) -> None:
    await bench.store.renaming.copy("tiny", "copy")
    await bench.store.renaming.move("tiny", "moved")
    assert on_disk(bench, "copy")["model"]["model_id"] == "copy"
    assert on_disk(bench, "moved")["model"]["model_id"] == "moved"
    path = Path(bench.store.layout.manifests_dir, "moved.json")
    own = on_disk(bench, "moved")
    path.write_text(json.dumps(own | {"model": own["model"] | {"model_id": "local:/m"}}))
    await bench.store.renaming.copy("moved", "again")
    await bench.store.renaming.move("moved", "last")
    assert on_disk(bench, "again")["model"]["model_id"] == "again"
    assert on_disk(bench, "last")["model"]["model_id"] == "local:/m"


async def test_the_digest_of_a_document_is_that_of_the_file_that_stands_for_the_model(bench: Bench) -> None:
    shards = write_tiny_llama(bench.directory / "tiny.gguf", shards=3)
    await bench.store.add(str(shards[0]), name="shards")
    written = document_of(on_disk(bench, "shards")["model"])
    assert Digest(written.sha256).text == on_disk(bench, "shards")["blob"]
    assert written.params_billions == 74_304 / 1e9
