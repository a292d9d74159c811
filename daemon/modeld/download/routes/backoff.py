"""How long to wait before a source is demanded again."""

from __future__ import annotations

import random
from collections.abc import Callable

from modeld.download.tuning import Tuning
from modelwire.errors import WireError


def delay(failures: int, fault: WireError, tuning: Tuning, jitter: Callable[[], float] = random.random) -> float | None:
    """Exponential with full jitter, so that requests that failed together do not return together; never less than
    the source demands. None when it demands more than `longest_retry_after_seconds`."""
    demanded = (fault.retry_after_ms or 0) / 1000
    if demanded > tuning.longest_retry_after_seconds:
        return None
    bound = min(tuning.longest_delay_seconds, tuning.first_delay_seconds * 2.0 ** min(failures - 1, 16))
    return max(demanded, bound * jitter())
