"""Job ids: 26 lowercase characters that sort by the time they were made.

48 bits of milliseconds and 80 random bits in Crockford's base 32 (no i, l, o, u), so that an id can be read aloud,
pasted into a path and compared as text. A later id is always greater than an earlier one of the same process, also
within a millisecond and when the clock is set back, and than those that the process is told of.
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

    def go_on_after(self, earlier: str) -> None:
        """From now on makes only ids that are greater than this one, which an earlier process has made: its clock may
        have been ahead."""
        self._last = max(self._last, _value(earlier))

    def new(self) -> str:
        moment = min(max(0, int(self._clock() * 1000)), _TIME_LIMIT - 1) << _RANDOM_BITS
        # The top random bit stays 0: room to count up within the millisecond.
        fresh = moment | self._randbits(_RANDOM_BITS - 1)
        self._last = fresh if moment > self._last else self._last + 1
        return _text(self._last)


_PROCESS = Ids()
new_id, go_on_after = _PROCESS.new, _PROCESS.go_on_after
"""One source for the process: its ids increase, and are greater than those that it was told of."""


def _value(text: str) -> int:
    """-1 for what is no id."""
    if len(text) != LENGTH or not set(text) <= set(ALPHABET):
        return -1
    value = 0
    for character in text:
        value = value << 5 | ALPHABET.index(character)
    return value if value < _TIME_LIMIT << _RANDOM_BITS else -1


def _text(value: int) -> str:
    return "".join(ALPHABET[value >> shift & 31] for shift in range(5 * (LENGTH - 1), -1, -5))
