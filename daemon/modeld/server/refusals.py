"""Notes refused connections in the activity log, and sums up those that come in numbers.

Otherwise whoever is refused could rotate the history of all others away, one connection a line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from modeld.activity import Activity
from modelwire.errors import WireError

QUIET_SECONDS: Final = 60.0
MOST_LINES: Final = 64
"""Users and reasons that have lines of their own in that time, 16 KiB; a user with subordinate uids can appear under
65,536 of them."""


class Refusals:
    """The first refusal of a user for one reason is a line, and those of the next minute are one more, with their
    number. `later` calls back after some seconds."""

    def __init__(self, activity: Activity, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._activity = activity
        self._later = later
        self._counts: dict[tuple[int | None, str], int] = {}
        self._others = 0
        """Refusals without a line of their own."""

    def note(self, uid: int | None, fault: WireError) -> None:
        key = (uid, fault.code)
        if not self._counts and not self._others:
            self._later(QUIET_SECONDS, self._sum_up)
        if key in self._counts:
            self._counts[key] += 1
        elif len(self._counts) < MOST_LINES:
            self._counts[key] = 0
            self._activity.record("peer.refused", outcome=fault.code, peer=uid, message=fault.message)
        else:
            self._others += 1

    def _sum_up(self) -> None:
        more = {key: count for key, count in self._counts.items() if count}
        for (uid, code), count in more.items():
            self._refused(code, uid, f"{count} more connections of uid {uid} were refused", count)
        if self._others:
            self._refused("several", None, f"{self._others} connections of other users were refused", self._others)
        self._counts.clear()
        self._others = 0

    def _refused(self, outcome: str, uid: int | None, message: str, count: int) -> None:
        within = f"{message} within {QUIET_SECONDS:.0f} s"
        self._activity.record("peer.refused", outcome=outcome, peer=uid, message=within, count=count)
