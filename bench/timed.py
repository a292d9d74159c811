"""Commands and calls that are timed in turn, as whole runs, with what they take of the processor."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

REFERENCE = "openssl dgst -sha256"


@dataclass
class Row:
    """One contender: how to run it, what it took, and what it should take at most."""

    name: str
    run: Callable[[], object]
    target: str = ""
    beside: str = REFERENCE
    is_peer: bool = False
    """Then the ratio is what modeld takes of it."""
    prepare: Callable[[], object] = lambda: None
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)

    def measure(self) -> None:
        self.prepare()
        cpu, start = cpu_seconds(), time.perf_counter()
        self.run()
        self.walls.append(time.perf_counter() - start)
        self.cpus.append(cpu_seconds() - cpu)

    @property
    def wall(self) -> float:
        return statistics.median(self.walls)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpus)


def cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def command(*arguments: str, stdin: str | None = None, **environment: str) -> None:
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open(stdin, "rb")) if stdin else subprocess.DEVNULL
        subprocess.run(
            arguments,
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            env={**os.environ, **environment},
        )


def print_rows(rows: list[Row]) -> None:
    by_name = {row.name: row for row in rows}
    print(f"{'':44} {'wall':>9} {'CPU':>8}  {'ratio':>6}  target")
    for row in rows:
        other = by_name.get(row.beside)
        ratio = ""
        if other is not None and other is not row:
            ratio = f"{other.wall / row.wall if row.is_peer else row.wall / other.wall:.2f}"
        print(f"{row.name:44} {row.wall * 1000:7.1f}ms {row.cpu:7.2f}s  {ratio:>6}  {row.target}")
