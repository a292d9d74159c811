"""A model and this machine: whose requirements count, and what is assumed instead of what is here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelwire.errors import NotFound
from modelwire.knowledge.document import built
from modelwire.knowledge.requirements import SMALL_LLM, Requirements
from modelwire.requests import ModelCopy, ModelFit, ModelMove, ModelRegister
from modelwire.values import FitLine, FitView
from rigs.operations_rig import MACHINE, OperationsRig, operations_rig
from rigs.tiny_gguf import write_tiny_llama


async def add(at: OperationsRig, needs: Requirements | None = None, *, known: bool = False, **written: str) -> None:
    """The model `m`, with a document of its own when there are requirements."""
    if known:
        (path,) = map(str, write_tiny_llama(at.room / "m.gguf"))
    else:
        path = at.file("m.gguf")
    await at.services.store.add(path, name="m")
    if needs is not None:
        manifest = Path(at.services.store.layout.root, "manifests", "m.json")
        content: dict[str, Any] = json.loads(manifest.read_bytes())
        content["model"] = msgspec.to_builtins(built("m", "M", "llm", requirements=needs, **written))
        manifest.write_text(json.dumps(content))


async def ask(at: OperationsRig, **fields: Any) -> FitView:
    answer = await at.ask(ModelFit(name="m", **fields))
    assert isinstance(answer, FitView)
    return answer


def named(fit: FitView) -> dict[str, FitLine]:
    return {line.what: line for line in fit.lines}


async def test_a_model_without_a_document_needs_what_is_usual(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await add(at)
        fit = await ask(at)
        assert (fit.name, fit.fits, fit.requirements_from, fit.machine) == ("m", True, "defaults", MACHINE)
        assert list(named(fit)) == ["vram", "ram", "architecture", "providers"]
        assert named(fit)["ram"].needed == 2048
        assert fit.providers == ("cpu",)


async def test_the_document_of_the_manifest_counts(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await add(at, SMALL_LLM)
        fit = await ask(at)
        assert (fit.fits, fit.requirements_from) == (False, "document")
        assert named(fit)["vram"].verdict == "unknown"
        assert "vram_mb in [node]" in (named(fit)["vram"].hint or "")
        assert "estimated_vram" not in named(fit), "it states what it needs"


async def test_a_document_may_state_exactly_what_is_usual(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await add(at, Requirements(), created_at="2025-12-01T00:00:00Z")
        assert (await ask(at)).requirements_from == "document"
        for change in (ModelCopy(source="m", destination="copy"), ModelMove(source="m", destination="moved")):
            await at.ask(change)
            assert (await at.ask(ModelFit(name=change.destination))).requirements_from == "document"


async def test_a_registered_document_may_state_it_too(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        given = msgspec.to_builtins(built("m", "M", "llm", created_at="2025-12-01T00:00:00Z"))
        await at.ask(ModelRegister(manifest=given))
        assert (await ask(at)).requirements_from == "document"
        await at.services.store.add(at.file("m.gguf"), name="m")
        assert (await ask(at)).requirements_from == "document"


async def test_what_modeld_filled_in_is_stated_by_nobody(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await add(at, known=True)
        path = str(tmp_path / "m.gguf")
        await at.ask(ModelMove(source="m", destination="moved"))
        await at.ask(ModelCopy(source="moved", destination="m"))
        assert (await ask(at)).requirements_from == "defaults"
        manifest = Path(at.services.store.layout.root, "manifests", "m.json")
        aged = json.loads(manifest.read_bytes())
        aged["produced_at"] = aged["model"]["created_at"] = "2025-12-01T00:00:00Z"
        manifest.write_text(json.dumps(aged))
        await at.services.store.add(path, name="m", license="mit", replace=True)
        assert (await ask(at)).requirements_from == "defaults", "another license is no document"


@pytest.mark.parametrize(
    ("assumed", "fits"),
    [
        ({"vram_mb": 4096}, True),
        ({"vram_mb": 512, "ram_mb": 2048}, False),
        ({"vram_mb": 4096, "ram_mb": 4095}, False),
        ({"vram_mb": 0}, False),
    ],
)
async def test_what_is_assumed_counts_instead_of_what_is_here(
    tmp_path: Path, assumed: dict[str, int], fits: bool
) -> None:
    async with operations_rig(tmp_path) as at:
        await add(at, SMALL_LLM)
        fit = await ask(at, **assumed)
        assert fit.fits is fits
        assert (fit.machine.vram_mb, fit.machine.vram_from) == (assumed["vram_mb"], "as requested")
        assert fit.machine.ram_mb == assumed.get("ram_mb", MACHINE.ram_mb)


async def test_the_estimate_of_the_header_decides_nothing(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await add(at, known=True)
        fit = await ask(at, vram_mb=0)
        assert fit.fits
        assert (named(fit)["estimated_vram"].verdict, named(fit)["estimated_ram"].verdict) == ("lacks", "fits")
        assert not any(line.decides for what, line in named(fit).items() if what.startswith("estimated"))
        assert named(fit)["estimated_vram"].note == "by its header, with 256 tokens"
        assert "estimated_ram" not in named(await ask(at, vram_mb=1024))


async def test_a_document_that_leaves_the_video_memory_open_gets_the_estimate_too(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await add(at, Requirements(min_ram_mb=1024), known=True)
        fit = await ask(at)
        assert fit.requirements_from == "document"
        assert "estimated_vram" in named(fit)


async def test_a_model_that_does_not_exist(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        with pytest.raises(NotFound):
            await at.ask(ModelFit(name="nothing"))
