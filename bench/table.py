"""Rows of figures with their targets, as people read them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def row(what: str, ours: str, reference: str, ratio: float | None, target: str, *, met: bool | None) -> None:
    """One line: the figure, its reference, their ratio, the target, and whether it was met in this run."""
    shown = f"{ratio:.2f}" if ratio is not None else "-"
    verdict = {True: "met", False: "MISSED", None: ""}[met]
    print(f"{what:<44} {ours:>14} {reference:>22} {shown:>7}  {target:<22} {verdict}", flush=True)


def header() -> None:
    print(f"{'what':<44} {'modeld':>14} {'reference':>22} {'ratio':>7}  {'target':<22}")


def row_of_waits(p99s: Sequence[float], alone: float) -> None:
    """The worst of the samples that clients gave who asked for paths beside other work, in microseconds."""
    worst = max(p99s)
    row(
        f"resolve p99 meanwhile, the worst of {len(p99s)}",
        f"{worst:.0f} us",
        f"without it {alone:.0f} us",
        worst / alone,
        "<= 2000 us",
        met=worst <= 2000,
    )
