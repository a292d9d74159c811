"""`modelctl fit`, with a real daemon, for programs and for people."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from modeld.machine import nvidia
from modeld.platform import graphics
from modelwire.knowledge.document import built
from modelwire.knowledge.requirements import SMALL_LLM
from rigs.command import Ctl
from rigs.tiny_gguf import write_tiny_llama


@pytest.fixture
def tiny(ctl: Ctl) -> str:
    (path,) = write_tiny_llama(ctl.room / "tiny.gguf")
    ctl.json("add", str(path))
    return "tiny"


@pytest.fixture
def small(ctl: Ctl, tiny: str) -> str:
    """A model whose document states what it needs."""
    ctl.json("cp", tiny, "small")
    manifest = ctl.room / "models" / "manifests" / "small.json"
    content = json.loads(manifest.read_bytes())
    content["model"] = msgspec.to_builtins(built("small", "Small", "llm", requirements=SMALL_LLM))
    manifest.write_text(json.dumps(content))
    return "small"


@pytest.fixture
def no_card() -> None:
    if nvidia.look(os.environ).cards or nvidia.look(os.environ).fault or graphics.amd_cards():
        pytest.skip("this machine has a graphics card")


def test_a_machine_that_has_enough(ctl: Ctl, small: str) -> None:
    done = ctl("fit", small, "--vram", "8GB", "--ram", "8GiB")
    assert done.returncode == 0
    rows = [line.split("  ") for line in done.stdout.splitlines()]
    shown = {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}
    assert shown["WHAT"] == ["NEEDED", "HERE", "VERDICT", "NOTE"]
    assert shown["video memory"] == ["2048 MB", "7629 MB", "fits", "as requested"]
    assert shown["memory"] == ["4096 MB", "8192 MB", "fits", "as requested"]
    assert shown["video memory, recommended"] == ["4096 MB", "7629 MB", "fits"]
    assert done.stderr == "modelctl: small fits such a machine\n"


def test_a_machine_that_lacks_something(ctl: Ctl, small: str) -> None:
    done = ctl("fit", small, "--vram", "512MiB", "--ram", "2GiB")
    assert done.returncode == 1
    assert done.stderr == "modelctl: small does not fit such a machine, by its video memory and its memory\n"
    assert ctl("fit", small, "--vram", "512MiB", "-q").stdout == ""
    assert ctl("fit", small, "--vram", "8GiB", "--ram", "8GiB", "-q").stdout == "small\n"


def test_for_programs(ctl: Ctl, small: str) -> None:
    done = ctl("fit", small, "--vram", "0", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    fit = json.loads(done.stdout)
    assert (fit["name"], fit["fits"], fit["requirements_from"]) == ("small", False, "document")
    assert fit["machine"]["vram_mb"] == 0
    assert fit["lines"][0] == {
        "what": "vram",
        "verdict": "lacks",
        "needed": 2048,
        "here": 0,
        "decides": True,
        "note": "as requested",
        "hint": None,
    }
    assert ctl("fit", small, "--vram", "8GiB", "--ram", "8GiB", "--json").returncode == 0


def test_a_model_that_states_nothing(ctl: Ctl, tiny: str) -> None:
    done = ctl("fit", tiny, "--vram", "0", "--ram", "8GiB")
    assert done.returncode == 0
    assert "by its header, with 256 tokens; does not decide" in done.stdout
    assert done.stderr == (
        "modelctl: tiny fits such a machine; it states no requirements, so these are the usual ones\n"
    )


@pytest.mark.usefixtures("no_card")
def test_without_a_graphics_card_the_video_memory_is_to_be_stated(ctl: Ctl, small: str) -> None:
    done = ctl("fit", small)
    assert done.returncode == 1
    assert "not known" in done.stdout
    assert "no graphics card was found" in done.stdout
    assert (
        "hint: State it as vram_mb in [node] of the daemon's configuration; `modelctl fit NAME --vram 8GiB` tries it."
        in done.stderr
    )


@pytest.mark.usefixtures("no_card")
def test_a_card_that_only_the_drivers_program_tells_of(ctl: Ctl, room: Path) -> None:
    program = room / "bin" / nvidia.PROGRAM
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '24564, NVIDIA GeForce RTX 4090'\n")
    program.chmod(0o755)
    ctl.environ["PATH"] = f"{program.parent}:{ctl.environ['PATH']}"
    ctl.json("add", ctl.file("m.gguf", b"weights"))
    machine = ctl.json("fit", "m")["machine"]
    assert (machine["vram_mb"], machine["vram_from"]) == (24564, "NVIDIA GeForce RTX 4090")
    assert machine["providers"][0] == "cuda"


def test_what_the_configuration_states(ctl: Ctl) -> None:
    ctl.environ |= {"MODELD_NODE_VRAM_MB": "16384", "MODELD_NODE_RAM_MB": "1024"}
    ctl.json("add", ctl.file("m.gguf", b"weights"))
    done = ctl("fit", "m", "--json")
    assert done.returncode == 1
    machine = json.loads(done.stdout)["machine"]
    assert (machine["vram_mb"], machine["ram_mb"]) == (16384, 1024)
    assert machine["ram_from"] == "stated in the daemon's configuration"


def test_a_model_that_does_not_exist(ctl: Ctl, tiny: str) -> None:
    done = ctl("fit", "tinny")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"Did you mean {tiny}?" in done.stderr


def test_a_size_that_is_none(ctl: Ctl) -> None:
    done = ctl("fit", "m", "--vram", "much", "--no-start")
    assert done.returncode == 2
    assert "--vram: expected a size such as '5GB'" in done.stderr


def test_a_list_of_the_models_that_fit(ctl: Ctl, small: str) -> None:
    assert ctl("list", "--fits", "-q").stdout == "tiny\n"
    ctl("stop")
    ctl.environ["MODELD_NODE_VRAM_MB"] = "8192"
    assert ctl("list", "--fits", "-q").stdout == "small\ntiny\n"
    assert ctl("list", "--fits", "--filter", "name=small", "-q").stdout == "small\n"
