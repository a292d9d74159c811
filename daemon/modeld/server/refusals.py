"""Which refusals are worth a line in the activity log: a stranger who keeps knocking must not write it full.

A user without any right could otherwise rotate the history of everybody else away, one refused connection a line.
"""

from __future__ import annotations

from typing import Final

QUIET_SECONDS: Final = 60.0
MOST_STRANGERS: Final = 1024
"""Remembered at once; a user with subordinate uids can appear under 65,536 of them."""


class Refusals:
    def __init__(self) -> None:
        self._told: dict[int | None, float] = {}

    def worth_telling(self, uid: int | None, now: float, *, has_role: bool) -> bool:
        """The first refusal of a stranger, then one a minute. A peer that has a role is always told of: its own
        limits bound what it can cause."""
        if has_role:
            return True
        last = self._told.get(uid)
        if last is not None and now - last < QUIET_SECONDS:
            return False
        if len(self._told) >= MOST_STRANGERS:
            self._told.clear()
        self._told[uid] = now
        return True
