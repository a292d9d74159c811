"""What a model needs of a machine, and whether a machine has it.

A machine fits when its video memory is at least the minimum or the minimum is 0, its memory is at least the minimum,
and its architecture is one of those listed. What is not known does not fit. Providers, recommendations and estimates
are reported beside that, and decide nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec

from modelwire.fields import Megabytes
from modelwire.values import EstimatedVram, FitLine, Machine, Verdict


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """All five are always written."""

    min_vram_mb: Megabytes = 0
    recommended_vram_mb: Megabytes = 0
    min_ram_mb: Megabytes = 2048
    execution_providers: tuple[str, ...] = ("cpu",)
    architectures: tuple[str, ...] = ("aarch64", "x86_64")


SMALL_LLM: Final = Requirements(
    min_vram_mb=2048, recommended_vram_mb=4096, min_ram_mb=4096, execution_providers=("cuda", "cpu")
)
MEDIUM_LLM: Final = Requirements(
    min_vram_mb=4096, recommended_vram_mb=8192, min_ram_mb=8192, execution_providers=("cuda", "cpu")
)
YOLO_NANO: Final = Requirements(
    min_vram_mb=512, recommended_vram_mb=1024, min_ram_mb=1024, execution_providers=("tensorrt", "cuda", "cpu")
)


def fits(needs: Requirements, machine: Machine) -> bool:
    return all(line.verdict == "fits" for line in lines(needs, machine) if line.decides)


def lines(needs: Requirements, machine: Machine) -> tuple[FitLine, ...]:
    """One for each requirement."""
    vram, ram = machine.vram_mb, machine.ram_mb
    vram_verdict = _enough(needs.min_vram_mb, vram)
    ram_verdict = _enough(needs.min_ram_mb, ram)
    known = machine.architecture in needs.architectures
    found: list[FitLine] = [
        FitLine(
            what="vram",
            verdict=vram_verdict,
            needed=needs.min_vram_mb,
            here=vram,
            note=machine.vram_from,
            hint=_to_state("vram") if vram_verdict == "unknown" else None,
        ),
        FitLine(
            what="ram",
            verdict=ram_verdict,
            needed=needs.min_ram_mb,
            here=ram,
            note=machine.ram_from,
            hint=_to_state("ram") if ram_verdict == "unknown" else None,
        ),
        FitLine(
            what="architecture",
            verdict="fits" if known else "lacks",
            needed=needs.architectures,
            here=(machine.architecture,),
        ),
        FitLine(
            what="providers",
            verdict=_any_provider(needs, machine),
            needed=needs.execution_providers,
            here=machine.providers,
            decides=False,
        ),
    ]
    if needs.recommended_vram_mb > needs.min_vram_mb:
        recommended = needs.recommended_vram_mb
        found.append(
            FitLine(
                what="recommended_vram",
                verdict=_enough(recommended, vram),
                needed=recommended,
                here=vram,
                decides=False,
            )
        )
    return tuple(found)


def providers_here(needs: Requirements, machine: Machine) -> tuple[str, ...]:
    """In the order of the model, which names the best first."""
    return tuple(each for each in needs.execution_providers if each in machine.providers)


def estimates(estimated: EstimatedVram, machine: Machine) -> tuple[FitLine, ...]:
    """For a model that states no video memory: what it takes, against the video memory, and against the memory, where
    an engine keeps what does not fit there."""
    if estimated.header is None and estimated.formula is None:
        return ()
    if estimated.header is not None:
        needed, note = estimated.header, f"by its header, with {estimated.context} tokens"
    else:
        needed, note = estimated.formula or 0, "by a rule of thumb"
    in_vram = _enough(needed, machine.vram_mb)
    line = FitLine(
        what="estimated_vram", verdict=in_vram, needed=needed, here=machine.vram_mb, decides=False, note=note
    )
    if in_vram == "fits":
        return (line,)
    in_ram = _enough(needed, machine.ram_mb)
    return (
        line,
        FitLine(what="estimated_ram", verdict=in_ram, needed=needed, here=machine.ram_mb, decides=False, note=note),
    )


def _enough(needed: int, here: int | None) -> Verdict:
    if needed == 0:
        return "fits"
    if here is None:
        return "unknown"
    return "fits" if here >= needed else "lacks"


def _any_provider(needs: Requirements, machine: Machine) -> Verdict:
    listed = needs.execution_providers
    if not listed or providers_here(needs, machine):
        return "fits"
    return "lacks" if all(each in machine.absent_providers for each in listed) else "unknown"


def _to_state(which: str) -> str:
    return (
        f"State it as {which}_mb in [node] of the daemon's configuration; `modelctl fit NAME --{which} 8GiB` tries it."
    )
