"""Job ids: 26 lowercase characters that sort by the time they were made.

48 bits of milliseconds and 80 random bits in Crockford's base 32 (no i, l, o, u), so that an id can be read aloud,
pasted into a path and compared as text. Within one process a later id is always greater than an earlier one, also
within a millisecond and when the clock is set back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

LENGTH = 26
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

_RANDOM_BITS = 80
_RANDOM_MASK = (1 << _RANDOM_BITS) - 1
_TIME_LIMIT = 1 << 48


class Ids:
    """Makes ids that only increase. Not thread-safe."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        randbits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._clock = clock
        self._randbits = randbits
        self._last = -1

    def new(self) -> str:
        moment = min(max(0, int(self._clock() * 1000)), _TIME_LIMIT - 1) << _RANDOM_BITS
        # The top random bit stays 0: room to count up within the millisecond.
        fresh = moment | self._randbits(_RANDOM_BITS - 1)
        self._last = fresh if moment > self._last else self._last + 1
        return _text(self._last)


new_id = Ids().new
"""One source for the process: ids increase within a process."""


def _text(value: int) -> str:
    return "".join(ALPHABET[value >> shift & 31] for shift in range(5 * (LENGTH - 1), -1, -5))
