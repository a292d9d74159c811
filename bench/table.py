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
