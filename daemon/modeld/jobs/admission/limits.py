"""The numbers that bound admission, each with its reason; the configuration may replace them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from modelwire.limits import WAITING_PER_PEER, WAITING_TOTAL

RUNNING_DEFAULT = 2
"""Byte work of one job fills a core and a disk; two overlap one job's hash with another's wait."""

AGEING_SECONDS = 30.0
"""From the lowest priority to the highest in two minutes: longer than any burst of urgent small jobs."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`running` has the limit of each kind of work; a kind that it lacks gets `running_default`."""

    waiting_total: int = WAITING_TOTAL
    waiting_per_peer: int = WAITING_PER_PEER
    running: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    running_default: int = RUNNING_DEFAULT
    ageing: float = AGEING_SECONDS

    def __post_init__(self) -> None:
        if self.waiting_total < 0 or self.waiting_per_peer < 0:
            raise ValueError("a waiting limit is 0 or more")
        if self.running_default < 1 or any(limit < 1 for limit in self.running.values()):
            raise ValueError("a running limit is 1 or more: with 0 the jobs of that kind would wait forever")
        if not self.ageing > 0:
            raise ValueError("ageing is a positive number of seconds")

    def running_of(self, kind: str) -> int:
        return self.running.get(kind, self.running_default)
