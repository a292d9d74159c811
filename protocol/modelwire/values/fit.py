"""What a machine has of what a model needs. All memory is in MB of 1024 x 1024 bytes."""

from __future__ import annotations

from typing import Literal

from modelwire.values.value import Value

Verdict = Literal["fits", "lacks", "unknown"]


class Machine(Value, omit_defaults=False, frozen=True, kw_only=True):
    """What a machine offers to models. What is not known is null; `ram_from` and `vram_from` say where a figure comes
    from, or why there is none.

    `vram_mb` is the memory of one device, the one that has the most. `absent_providers` are known not to be here; of a
    provider in neither list nothing is known.
    """

    architecture: str
    ram_mb: int | None = None
    ram_from: str | None = None
    vram_mb: int | None = None
    vram_from: str | None = None
    providers: tuple[str, ...] = ("cpu",)
    absent_providers: tuple[str, ...] = ()


class FitLine(Value, omit_defaults=False, frozen=True, kw_only=True):
    """One requirement: memory in MB, or words of which one is enough. A line that does not decide is there for
    information; `here` is null when it is not known. `hint` is what the user can do about the verdict."""

    what: Literal["vram", "ram", "architecture", "providers", "recommended_vram", "estimated_vram", "estimated_ram"]
    verdict: Verdict
    needed: int | tuple[str, ...]
    here: int | tuple[str, ...] | None
    decides: bool = True
    note: str | None = None
    hint: str | None = None


class FitView(Value, omit_defaults=False, frozen=True, kw_only=True):
    """Whether a model fits a machine: the lines that decide all do. The requirements are those of the model's document,
    or the usual ones where it has none. `providers` are those of the model that are here, in its order."""

    name: str
    fits: bool
    requirements_from: Literal["document", "defaults"]
    machine: Machine
    lines: tuple[FitLine, ...] = ()
    providers: tuple[str, ...] = ()
