"""Whether a machine has what a model needs: the rule, line by line."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from modelwire.knowledge.requirements import (
    MEDIUM_LLM,
    SMALL_LLM,
    YOLO_NANO,
    Requirements,
    estimates,
    fits,
    lines,
    providers_here,
)
from modelwire.values import EstimatedVram, FitLine, Machine


def machine(vram: int | None = 4096, ram: int | None = 8192, architecture: str = "aarch64", **more: Any) -> Machine:
    return Machine(vram_mb=vram, ram_mb=ram, architecture=architecture, **more)


def the(what: str, needs: Requirements, here: Machine) -> FitLine:
    (line,) = (line for line in lines(needs, here) if line.what == what)
    return line


@pytest.mark.parametrize(
    ("minimum", "vram", "enough_vram"),
    [
        (0, 0, True),
        (0, None, True),
        (0, 9, True),
        (2048, 0, False),
        (2048, 2047, False),
        (2048, 2048, True),
        (2048, 2049, True),
        (2048, None, False),
    ],
)
def test_fits_when_vram_is_enough_or_not_needed_and_ram_is_enough_and_the_architecture_is_listed(
    minimum: int, vram: int | None, enough_vram: bool
) -> None:
    needs = Requirements(min_vram_mb=minimum, min_ram_mb=4096, architectures=("aarch64", "x86_64"))
    rams: list[tuple[int | None, bool]] = [(4095, False), (4096, True), (4097, True), (0, False), (None, False)]
    names = [
        ("aarch64", True),
        ("x86_64", True),
        ("armv7", False),
        ("AARCH64", False),
        ("arm64", False),
        ("x86", False),
    ]
    for (ram, enough_ram), (name, listed) in product(rams, names):
        expected = enough_vram and enough_ram and listed
        assert fits(needs, machine(vram, ram, name)) is expected, (minimum, vram, ram, name)


def test_small_llm_on_4096_vram_8192_ram_aarch64_fits() -> None:
    assert fits(SMALL_LLM, machine(4096, 8192, "aarch64"))


def test_small_llm_on_512_vram_2048_ram_aarch64_does_not_fit() -> None:
    assert not fits(SMALL_LLM, machine(512, 2048, "aarch64"))


def test_small_llm_on_4096_vram_8192_ram_armv7_does_not_fit() -> None:
    assert not fits(SMALL_LLM, machine(4096, 8192, "armv7"))


def test_each_line_says_what_is_needed_and_what_is_here() -> None:
    here = machine(512, 2048, "armv7", providers=("cuda", "cpu"), vram_from="a card", ram_from="a container")
    assert lines(SMALL_LLM, here) == (
        FitLine(what="vram", verdict="lacks", needed=2048, here=512, note="a card"),
        FitLine(what="ram", verdict="lacks", needed=4096, here=2048, note="a container"),
        FitLine(what="architecture", verdict="lacks", needed=("aarch64", "x86_64"), here=("armv7",)),
        FitLine(what="providers", verdict="fits", needed=("cuda", "cpu"), here=("cuda", "cpu"), decides=False),
        FitLine(what="recommended_vram", verdict="lacks", needed=4096, here=512, decides=False),
    )


@pytest.mark.parametrize(("which", "other"), [("vram", "ram"), ("ram", "vram")])
def test_memory_that_is_not_known_does_not_fit_and_can_be_stated(which: str, other: str) -> None:
    known: dict[str, Any] = {which: None, other: 1 << 20}
    here = machine(**known)
    line = the(which, MEDIUM_LLM, here)
    assert (line.verdict, line.here) == ("unknown", None)
    assert line.hint is not None
    assert line.hint.startswith(f"State it as {which}_mb in [node]")
    assert f"--{which} 8GiB" in line.hint
    assert the(other, MEDIUM_LLM, here).hint is None
    assert not fits(MEDIUM_LLM, here)


def test_video_memory_that_is_not_known_and_not_needed_is_no_matter() -> None:
    line = the("vram", Requirements(), machine(None, vram_from="no card"))
    assert (line.verdict, line.hint, line.note) == ("fits", None, "no card")


@pytest.mark.parametrize(
    ("here", "absent", "verdict", "found"),
    [
        (("cuda", "cpu"), (), "fits", ("cuda",)),
        (("tensorrt", "cuda", "cpu"), (), "fits", ("tensorrt", "cuda")),
        (("cpu",), ("tensorrt", "cuda"), "lacks", ()),
        (("cpu",), ("cuda",), "unknown", ()),
        (("cpu",), (), "unknown", ()),
    ],
)
def test_one_provider_is_enough_and_decides_nothing(
    here: tuple[str, ...], absent: tuple[str, ...], verdict: str, found: tuple[str, ...]
) -> None:
    needs = Requirements(execution_providers=("tensorrt", "cuda"))
    found_here = machine(providers=here, absent_providers=absent)
    line = the("providers", needs, found_here)
    assert (line.verdict, line.decides) == (verdict, False)
    assert providers_here(needs, found_here) == found
    assert fits(needs, found_here)


def test_a_model_without_providers_needs_none() -> None:
    assert the("providers", Requirements(execution_providers=()), machine()).verdict == "fits"


@pytest.mark.parametrize("needs", [SMALL_LLM, MEDIUM_LLM, YOLO_NANO])
def test_a_recommendation_decides_nothing(needs: Requirements) -> None:
    here = machine(needs.min_vram_mb, needs.min_ram_mb)
    line = the("recommended_vram", needs, here)
    assert (line.verdict, line.decides, line.needed) == ("lacks", False, needs.recommended_vram_mb)
    assert fits(needs, here)
    assert the("recommended_vram", needs, machine(needs.recommended_vram_mb)).verdict == "fits"


def test_a_recommendation_that_says_nothing_new_is_left_out() -> None:
    needs = Requirements(min_vram_mb=4096, recommended_vram_mb=4096)
    assert [line.what for line in lines(needs, machine())] == ["vram", "ram", "architecture", "providers"]


def test_the_header_is_believed_before_the_rule_of_thumb() -> None:
    estimated = EstimatedVram(formula=1843, header=2215, context=4096)
    (line,) = estimates(estimated, machine(4096))
    assert (line.what, line.verdict, line.needed, line.decides) == ("estimated_vram", "fits", 2215, False)
    assert line.note == "by its header, with 4096 tokens"
    (line,) = estimates(EstimatedVram(formula=1843), machine(4096))
    assert (line.needed, line.note) == (1843, "by a rule of thumb")


@pytest.mark.parametrize(("vram", "verdict"), [(None, "unknown"), (0, "lacks"), (2214, "lacks")])
def test_what_does_not_fit_into_video_memory_lies_in_memory(vram: int | None, verdict: str) -> None:
    in_vram, in_ram = estimates(EstimatedVram(header=2215, context=4096), machine(vram, 2215))
    assert (in_vram.verdict, in_ram.what, in_ram.verdict, in_ram.decides) == (verdict, "estimated_ram", "fits", False)


@pytest.mark.parametrize("estimated", [EstimatedVram(), EstimatedVram(context=4096)])
def test_without_an_estimate_there_is_no_line(estimated: EstimatedVram) -> None:
    assert estimates(estimated, machine()) == ()
