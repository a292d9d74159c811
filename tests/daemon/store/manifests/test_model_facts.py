"""What a model says about itself is known from its publication on, is read again where it is lost, and is never read
from bytes that may be others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from modeld.inspect.inspection import Inspection, inspect
from modeld.store.ingest import look
from modeld.store.manifests import model_facts
from modeld.store.publish.publishing import format_rule
from modelwire.errors import Corrupt, InvalidRequest
from modelwire.values import ModelFacts
from rigs.adding_rig import Bench
from rigs.gguf_headers import gguf_file
from rigs.tiny_gguf import write_tiny_llama


async def facts_of(bench: Bench, name: str) -> ModelFacts | None:
    return (await bench.store.models.show(name)).facts


@pytest.fixture
def tiny(bench: Bench) -> str:
    (path,) = write_tiny_llama(bench.directory / "tiny.gguf")
    return str(path)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No header is read from here on."""

    def inspect(*_: object) -> Inspection:
        raise AssertionError("a header is read")

    monkeypatch.setattr(model_facts, "inspect", inspect)


def safetensors(data: bytes, name: str = "t") -> bytes:
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({name: tensor}).encode()
    return len(header).to_bytes(8, "little") + header + data


def directory_of(bench: Bench, files: dict[str, bytes]) -> str:
    directory = bench.directory / "directory"
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return str(directory)


@pytest.mark.usefixtures("unread")
async def test_a_model_is_shown_without_opening_its_file(bench: Bench, tiny: str) -> None:
    await bench.store.add(tiny)
    facts = await facts_of(bench, "tiny")
    assert facts is not None
    assert (facts.architecture, facts.parameters, facts.context_length) == ("llama", 74_304, 256)
    bench.reopen()
    assert await facts_of(bench, "tiny") == facts


async def test_facts_that_are_lost_are_read_again_and_kept(
    bench: Bench, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.store.add(tiny)
    facts = await facts_of(bench, "tiny")
    await bench.store.ingest.facts.prune([])
    assert await facts_of(bench, "tiny") == facts
    monkeypatch.setattr(model_facts, "inspect", lambda *_: Inspection())
    assert await facts_of(bench, "tiny") == facts


async def test_facts_of_an_older_reader_are_read_again(bench: Bench, tiny: str) -> None:
    await bench.store.add(tiny)
    facts = await facts_of(bench, "tiny")
    bench.catalog.call(lambda db: db.execute("UPDATE facts SET reader = 0, facts = x'00'").close())
    assert await facts_of(bench, "tiny") == facts


async def test_facts_of_blobs_that_no_model_names_are_forgotten(bench: Bench, tiny: str) -> None:
    await bench.store.add(tiny)
    await bench.store.prune(0)
    assert bench.catalog.look(lambda db: db.execute("SELECT count(*) FROM facts").fetchone()) == (1,)
    await bench.store.renaming.remove("tiny")
    await bench.store.prune(0)
    assert bench.catalog.look(lambda db: db.execute("SELECT count(*) FROM facts").fetchone()) == (0,)


async def test_the_facts_of_shards_are_those_of_the_whole(bench: Bench, tiny: str) -> None:
    await bench.store.add(tiny)
    (bench.directory / "shards").mkdir()
    shards = write_tiny_llama(bench.directory / "shards" / "tiny.gguf", shards=3)
    await bench.store.add(str(shards[1]), name="shards")
    alone, together = await facts_of(bench, "tiny"), await facts_of(bench, "shards")
    assert alone is not None
    assert together == alone


async def test_an_index_names_the_files_that_belong_together(bench: Bench) -> None:
    weight_map = {"a": "x.safetensors", "b": "y.safetensors"}
    files = {
        "x.safetensors": safetensors(bytes(5), "a"),
        "y.safetensors": safetensors(bytes(7), "b"),
        "z.safetensors": safetensors(bytes(100), "c"),
        "model.safetensors.index.json": json.dumps({"metadata": {}, "weight_map": weight_map}).encode(),
    }
    await bench.store.add(directory_of(bench, files), name="indexed")
    facts = await facts_of(bench, "indexed")
    assert facts is not None
    assert (facts.parameters, facts.tensors, facts.tensor_types, facts.opaque) == (12, 2, {"U8": 12}, None)


@pytest.mark.parametrize(
    ("index", "opaque"),
    [
        ({"weight_map": {"a": "x.safetensors", "b": "gone.safetensors"}}, "a part is missing: gone.safetensors"),
        ({"weight_map": {"a": "../x.safetensors", "b": "x.safetensors"}}, "a part is missing: ../x.safetensors"),
        ({"weight_map": {"a": "A" * 9_000_000, "b": "x.safetensors"}}, f"a part is missing: {'A' * 200}"),
        ({"weight_map": {}}, None),
        ({"weight_map": {"a": "other.safetensors"}}, None),
        ({"weight_map": ["x"]}, None),
        ([], None),
    ],
)
async def test_an_index_is_not_trusted(bench: Bench, index: Any, opaque: str | None) -> None:
    files = {"x.safetensors": safetensors(bytes(5)), "model.safetensors.index.json": json.dumps(index).encode()}
    await bench.store.add(directory_of(bench, files), name="indexed")
    facts = await facts_of(bench, "indexed")
    assert facts is not None
    assert (facts.parameters, facts.opaque) == (5 if opaque is None else None, opaque)


@pytest.mark.usefixtures("unread")
async def test_a_suspect_model_is_not_read(bench: Bench, tiny: str) -> None:
    added = await bench.store.add(tiny)
    facts = await facts_of(bench, "tiny")
    await bench.store.ingest.facts.prune([])
    os.chmod(added.path, 0o644)
    with open(added.path, "r+b") as file:
        file.write(b"GGUF")
    view = await bench.store.models.show("tiny")
    assert (view.state, view.facts) == ("suspect", None)
    assert facts is not None


async def test_bytes_that_change_while_they_are_read_are_not_remembered(
    bench: Bench, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await bench.store.add(tiny)
    await bench.store.ingest.facts.prune([])

    def meanwhile(descriptor: int, size: int, name: str) -> Inspection:
        os.chmod(added.path, 0o644)
        Path(added.path).write_bytes(Path(added.path).read_bytes().replace(b"tiny", b"EVIL", 1))
        return inspect(descriptor, size, name)

    monkeypatch.setattr(model_facts, "inspect", meanwhile)
    await bench.store.models.show("tiny")
    assert bench.catalog.look(lambda db: db.execute("SELECT count(*) FROM facts").fetchone()) == (0,)


async def test_shards_say_together_what_each_does_not(bench: Bench) -> None:
    first = {"split.no": 0, "split.count": 2, "general.parameter_count": 512, "general.file_type": 15}
    (bench.directory / "m-00001-of-00002.gguf").write_bytes(gguf_file(first, {"a": (1, 256, 512)}))
    (bench.directory / "m-00002-of-00002.gguf").write_bytes(
        gguf_file({"split.no": 1, "split.count": 2}, {"b": (12, 256, 144)})
    )
    await bench.store.add(str(bench.directory / "m-00001-of-00002.gguf"), name="m")
    facts = await facts_of(bench, "m")
    assert facts is not None
    assert (facts.parameters, facts.weights, facts.quantization) == (512, 512, "Q4_K_M")


async def test_what_nobody_has_verified_is_read_each_time(bench: Bench, tiny: str) -> None:
    added = await bench.store.add(tiny)
    bench.close()
    for left in Path(bench.layout.catalog_path).parent.glob(f"{Path(bench.layout.catalog_path).name}*"):
        left.unlink()
    bench.open()
    assert (await bench.store.models.show("tiny")).verified_at is None
    assert (await facts_of(bench, "tiny")) is not None
    assert bench.catalog.look(lambda db: db.execute("SELECT count(*) FROM facts").fetchone()) == (0,)
    assert added.format == "gguf"


async def test_an_opaque_header_stops_nothing_and_says_why(bench: Bench) -> None:
    added = await bench.store.add(bench.file("m.gguf", b"GGUF" + bytes(100)))
    facts = await facts_of(bench, "m")
    assert added.warning is None
    assert facts == ModelFacts(format="gguf", opaque="it does not begin as a GGUF file of version 2 or 3")


async def test_bytes_of_no_known_format_have_no_facts(bench: Bench) -> None:
    await bench.store.add(bench.file("m.bin", b"weights"), name="m")
    assert await facts_of(bench, "m") is None


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.gguf", b"GGUF" + bytes(100), "does not begin as a GGUF file"),
        ("m.gguf", safetensors(b"data"), "its name promises gguf"),
        ("m.bin", b"weights", "no known format"),
    ],
)
async def test_a_strict_add_refuses_what_is_not_read(bench: Bench, name: str, content: bytes, reason: str) -> None:
    with pytest.raises(Corrupt, match=reason) as refused:
        await bench.store.add(bench.file(name, content), formats="strict_format")
    assert "--strict-format" in (refused.value.hint or "")
    bench.assert_nothing_happened()
    await bench.store.add(bench.file(name, content), name="m")
    assert bench.names() == ["m"]


async def test_a_strict_add_takes_what_is_read_and_what_lies_beside_it(bench: Bench) -> None:
    files = {"model.safetensors": safetensors(b"data"), "config.json": b"{}", "README.md": b"words", "notes": b"words"}
    await bench.store.add(directory_of(bench, files), name="m", formats="strict_format")
    assert bench.names() == ["m"]


async def test_a_look_that_fails_leaves_the_facts_for_later(
    bench: Bench, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Inspection:
        raise ValueError("a header of an unknown kind")

    with monkeypatch.context() as patched:
        patched.setattr(look, "inspect", broken)
        assert (await bench.store.add(tiny)).format == "unknown"
    facts = await facts_of(bench, "tiny")
    assert facts is not None
    assert facts.architecture == "llama"


def test_a_format_is_not_both_strict_and_forced() -> None:
    with pytest.raises(InvalidRequest, match="either forced or strict"):
        format_rule(force=True, strict=True)


async def test_a_configuration_beside_the_weights_is_heard(bench: Bench) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 4096}
    files = {"x.safetensors": safetensors(bytes(5)), "config.json": json.dumps(config).encode()}
    await bench.store.add(directory_of(bench, files), name="configured")
    view = await bench.store.models.show("configured")
    assert view.facts is not None
    assert (view.facts.architecture, view.facts.context_length, view.facts.parameters) == ("llama", 4096, 5)
    assert view.model is not None
    assert (view.model["model_type"], view.model["context_length"]) == ("llm", 4096)
