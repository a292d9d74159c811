"""What a manifest says of its source is read as it was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.pulls.recorded import recorded_source, recorded_text
from modeld.sources.parse import parse
from modeld.store import ModelName
from rigs.maintain_rig import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.mark.parametrize(
    ("text", "signed"), [("hf:org/repo@main", False), ("https://h.example/m.gguf?X-Amz-Signature=abc", True)]
)
async def test_what_is_written_is_read_again(bench: Bench, text: str, signed: bool) -> None:
    await bench.add("m")
    reference, include, exclude = parse(text), ("*.gguf", "a/+b"), ("-c",)
    path = Path(bench.layout.manifest(ModelName.parse("m")))
    document = json.loads(path.read_text())
    document["source"] = {"reference": recorded_text(reference, include, exclude), "filename": "m.gguf"}
    path.write_text(json.dumps(document))
    found = recorded_source(bench.store.index.find("m"))
    assert found is not None
    assert (found.text, found.include, found.exclude, found.signed) == (reference.text, include, exclude, signed)
    assert [file for file, _, _ in found.files] == ["m.gguf"]


async def test_a_glob_with_a_space_cannot_be_read_again(bench: Bench) -> None:
    await bench.add("m")
    path = Path(bench.layout.manifest(ModelName.parse("m")))
    document = json.loads(path.read_text())
    document["source"] = {"reference": recorded_text(parse("hf:org/repo"), ("a b*",), ()), "filename": "m.gguf"}
    path.write_text(json.dumps(document))
    assert recorded_source(bench.store.index.find("m")) is None
