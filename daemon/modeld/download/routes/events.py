"""What happens to a transfer beside its progress: each a fact for the job's history and the activity log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

EventKind = Literal[
    "resumed",
    "retry",
    "waiting",
    "failover",
    "ranges_ignored",
    "source_changed",
    "restarted",
    "damaged_piece",
    "breaker_opened",
    "condemned",
    "skipped",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferEvent:
    """Nothing in it is secret."""

    kind: EventKind
    file: str
    source: str
    reason: str
    attempt: int = 1
    delay_s: float = 0.0
    """How long until the source is asked again."""

    bytes: int = 0
    """Those that stay: already here when the transfer resumed, failed over or was tried again."""


OnEvent = Callable[[TransferEvent], None]
"""Called from byte threads, several at once: cheap, and never raising."""


def unheard(_event: TransferEvent) -> None:
    """For who keeps no history."""
