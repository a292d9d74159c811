"""The space that one user may take by what is unfinished: a share of what is free for them.

Unfinished is what is reserved for running jobs and what earlier ones have left: partial downloads, whole files of
models that never came, and bytes in quarantine. Each further user gets the same share of what is left, so that no
number of them takes all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

from modeld.store.disk.space import Reservation, Space
from modelwire.errors import NoSpace, QuotaExceeded
from modelwire.units import rounded_size

_ASK: Final = "Ask an admin to do this, or to raise `unfinished_percent` in `[store]`."
_MAKE_ROOM: Final = (
    "Let running jobs end, discard what others left with `modelctl cancel JOB --discard`, or ask an admin to do this,"
    " or to raise `unfinished_percent` in `[store]`."
)


Check = Callable[[int, int], None]
"""Blocking: raises when a user whose running jobs have reserved the first number of bytes may not have as many more as
the second."""


class LeftFiles(Protocol):
    """The files that jobs have left, by the user who counts for them."""

    def bytes_of(self, uid: int) -> int: ...

    def look_again(self, uid: int) -> int:
        """Blocking: without what is gone by now."""

    def note(self, path: str, uid: int, size: int) -> None: ...


class ShareExceeded(QuotaExceeded):
    """By one user: the same request of another user may succeed."""


class UserSpaces:
    """The spaces of all users who have a share. Safe to call from any thread."""

    def __init__(self, whole: Space, left: LeftFiles, *, percent: int) -> None:
        self._whole = whole
        self._left = left
        self._percent = percent
        self._lock = threading.Lock()
        self._spaces: dict[int, UserSpace] = {}
        self._counted: dict[tuple[int, Space], CountedSpace] = {}

    def of(self, uid: int) -> UserSpace:
        with self._lock:
            if uid not in self._spaces:
                self._spaces[uid] = UserSpace(self._whole, self._left, uid, self._percent)
            return self._spaces[uid]

    def limited(self, uid: int, space: Space, check: Check) -> Space:
        """That space, where `check` allows more to the user."""
        with self._lock:
            counted = self._counted.get((uid, space))
            if counted is None:
                counted = self._counted[uid, space] = CountedSpace(space)
        return LimitedSpace(counted, check)

    def named(self, path: str) -> None:
        """Call it when a model names the file: the file counts for no user any more."""
        self._left.note(path, 0, 0)


class CountedSpace(Space):
    """A space of which one user's reservations are counted."""

    def __init__(self, whole: Space) -> None:
        super().__init__(lambda: 0)
        self._whole = whole
        self.reserving = threading.Lock()
        """Around a reservation and the check before it."""

    def reserve(self, size: int) -> Reservation:
        return self._count(self._whole.reserve(size), size)

    def adopt(self, size: int) -> Reservation:
        return self._count(self._whole.adopt(size), size)

    def leave(self, path: str, size: int) -> None:
        self._whole.leave(path, size)

    def _count(self, reserved: Reservation, size: int) -> Reservation:
        with self._lock:
            self._promised += size
            self._unwritten += size
        return _OfUser(self, reserved, size)


class LimitedSpace(Space):
    """The space of one request. Adopted bytes need room too: they will be those of a model of the user."""

    def __init__(self, counted: CountedSpace, check: Check) -> None:
        super().__init__(lambda: 0)
        self._counted = counted
        self._check = check

    def reserve(self, size: int) -> Reservation:
        with self._counted.reserving:
            self._check(self._counted.promised, size)
            return self._counted.reserve(size)

    def adopt(self, size: int) -> Reservation:
        with self._counted.reserving:
            self._check(self._counted.promised, size)
            return self._counted.adopt(size)

    def leave(self, path: str, size: int) -> None:
        self._counted.leave(path, size)


class UserSpace(CountedSpace):
    def __init__(self, whole: Space, left: LeftFiles, uid: int, percent: int) -> None:
        super().__init__(whole)
        self._left = left
        self._uid = uid
        self._percent = percent

    def reserve(self, size: int) -> Reservation:
        """As `Space.reserve`; raises ShareExceeded, with the numbers. When the whole store has too little, its
        error has the bytes that must be free for this user (`room_bytes`)."""
        with self.reserving:
            self._check_share(size)
            return super().reserve(size)

    def leave(self, path: str, size: int) -> None:
        self._left.note(path, self._uid, size)

    def _check_share(self, size: int) -> None:
        left = self._left.bytes_of(self._uid)
        if self.promised + left + size <= self._limit(left):
            return
        left = self._left.look_again(self._uid)
        unfinished, limit = self.promised + left, self._limit(left)
        if unfinished + size <= limit:
            return
        try:
            self._whole.reserve(size).release()
        except (NoSpace, QuotaExceeded) as fault:
            # Models that go for this job must free what the user's share of it has to be.
            fault.details["room_bytes"] = -(-(unfinished + size) * 100 // self._percent) - unfinished
            raise
        raise ShareExceeded(
            f"{rounded_size(size)} are needed; what is unfinished may take {rounded_size(limit)} for each user, and"
            f" yours takes {rounded_size(unfinished)} ({rounded_size(self.promised)} by running jobs,"
            f" {rounded_size(left)} by what earlier ones left)",
            hint=_MAKE_ROOM if unfinished else _ASK,
            details={
                "needed_bytes": size,
                "limit_bytes": limit,
                "promised_bytes": self.promised,
                "left_bytes": left,
                "uid": self._uid,
            },
        )

    def _limit(self, left: int) -> int:
        return (self._whole.available + self.promised + left) * self._percent // 100


class _OfUser(Reservation):
    __slots__ = ("_reserved",)

    def __init__(self, space: CountedSpace, reserved: Reservation, size: int) -> None:
        super().__init__(space, size)
        self._reserved = reserved

    def settle(self, size: int) -> None:
        self._reserved.settle(size)

    def release(self) -> None:
        super().release()
        self._reserved.release()
