"""How long to wait before a source is asked again."""

from __future__ import annotations

import random
from collections.abc import Callable

from modeld.download.tuning import Tuning
from modelwire.errors import WireError


def delay(failures: int, fault: WireError, tuning: Tuning, dice: Callable[[], float] = random.random) -> float | None:
    """Exponential with full jitter, so that those who failed together do not come back together; never less than
    the source asked for. None when it asks for more than anybody wants to wait."""
    asked = (fault.retry_after_ms or 0) / 1000
    if asked > tuning.longest_retry_after_seconds:
        return None
    bound = min(tuning.longest_delay_seconds, tuning.first_delay_seconds * 2.0 ** min(failures - 1, 16))
    return max(asked, bound * dice())
