"""Decides which refusals the activity log records: a user without a role must not fill it.

Otherwise such a user could rotate the history of all others away, one refused connection a line.
"""

from __future__ import annotations

from typing import Final

QUIET_SECONDS: Final = 60.0
MOST_STRANGERS: Final = 1024
"""Users without a role that are remembered; a user with subordinate uids can appear under 65,536 of them."""


class Refusals:
    def __init__(self) -> None:
        self._recorded: dict[int | None, float] = {}

    def should_record(self, uid: int | None, now: float, *, has_role: bool) -> bool:
        """True for the first refusal of a user without a role, then once a minute. Always true for a user with a role,
        whose limits bound the number of refusals."""
        if has_role:
            return True
        last = self._recorded.get(uid)
        if last is not None and now - last < QUIET_SECONDS:
            return False
        if len(self._recorded) >= MOST_STRANGERS:
            self._recorded.clear()
        self._recorded[uid] = now
        return True
