"""What happens to a download beside its progress: each event goes into the job's history and the activity log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

EventKind = Literal[
    "transfer.resumed",
    "transfer.retry",
    "transfer.waiting",
    "source.failed",
    "transfer.ranges_ignored",
    "source.changed",
    "transfer.restarted",
    "transfer.damaged_piece",
    "source.breaker_opened",
    "source.condemned",
    "source.skipped",
]
"""As the activity log names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferEvent:
    """It holds no secret."""

    kind: EventKind
    file: str
    source: str
    reason: str
    attempt: int = 1
    delay_s: float = 0.0
    """How long until the source is asked again."""

    bytes: int = 0
    """Those that stay: already here when the download resumed, failed over or was retried."""


OnEvent = Callable[[TransferEvent], None]
"""Called from byte threads, several at once. It must be quick and must not raise."""


def unheard(_event: TransferEvent) -> None:
    """For a caller that keeps no history."""
