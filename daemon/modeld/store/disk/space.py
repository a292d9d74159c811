"""Free space for bytes that are not written yet, reserved before the first of them is written.

Several jobs write at once. Each would find enough free space on its own; so the space reserved for one job counts as
used for the next until the bytes are on the disk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType

from modeld.store.disk.durable import store_faults
from modelwire.errors import NoSpace, QuotaExceeded


def free_bytes_under(root: str) -> int:
    """Bytes that this user may still write; blocks kept for the superuser do not count."""
    with store_faults("ask for the free space of", root):
        status = os.statvfs(root)
    return status.f_bavail * status.f_frsize


class Reservation:
    """Reserved space. `settle` what has reached the disk; `release` when the file has its name, or is gone.

    It may be called from any thread, and `release` any number of times.
    """

    __slots__ = ("_quota", "_space", "_unwritten")

    def __init__(self, space: Space, size: int) -> None:
        self._space = space
        self._quota = size
        self._unwritten = size

    def settle(self, size: int) -> None:
        """`size` bytes are allocated now: the filesystem itself counts them."""
        with self._space._lock:
            size = min(size, self._unwritten)
            self._unwritten -= size
            self._space._unwritten -= size

    def release(self) -> None:
        with self._space._lock:
            self._space._unwritten -= self._unwritten
            self._space._promised -= self._quota
            self._unwritten = self._quota = 0

    def leave(self, path: str, size: int) -> None:
        """The file stays, unfinished, and takes `size` bytes of the disk."""
        self._space.leave(path, size)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.release()


class Space:
    """The budget of one store: the filesystem's free bytes above a floor, and optionally a total."""

    def __init__(
        self,
        free_bytes: Callable[[], int],
        *,
        min_free: int = 0,
        max_bytes: int | None = None,
        used: Callable[[], int] | None = None,
    ) -> None:
        if max_bytes is not None and used is None:
            raise ValueError("a limit on the store's bytes needs to know how many there are")
        self._free_bytes = free_bytes
        # Plain numbers: they go into errors, and the configuration's number types cannot be encoded.
        self._min_free = int(min_free)
        self._max_bytes = None if max_bytes is None else int(max_bytes)
        self._used = used
        self._reserving = threading.Lock()
        self._lock = threading.Lock()
        self._unwritten = 0
        self._promised = 0

    @property
    def promised(self) -> int:
        """Bytes reserved for all files that have no name yet."""
        return self._promised

    @property
    def available(self) -> int:
        """Bytes that `reserve` would give to one caller now."""
        with self._lock:
            unwritten, promised = self._unwritten, self._promised
        available = self._free_bytes() - self._min_free - unwritten
        if self._max_bytes is not None and self._used is not None:
            available = min(available, self._max_bytes - self._used() - promised)
        return max(0, available)

    def leave(self, path: str, size: int) -> None:
        """As `Reservation.leave`."""

    def reserve(self, size: int) -> Reservation:
        """Room for `size` bytes; NoSpace or QuotaExceeded, with the numbers, when there is not enough."""
        with self._reserving:
            # Reservations are read before the disk is: a job that writes meanwhile is counted twice, never
            # left out. The disk is read outside the inner lock, so that a dead mount cannot hold up a release.
            with self._lock:
                unwritten, promised = self._unwritten, self._promised
            self._check_quota(size, promised)
            self._check_disk(size, unwritten)
            with self._lock:
                self._unwritten += size
                self._promised += size
            return Reservation(self, size)

    def adopt(self, size: int) -> Reservation:
        """As `reserve`, for bytes on this filesystem already: they count for the limit and need no free space."""
        with self._reserving:
            with self._lock:
                promised = self._promised
            self._check_quota(size, promised)
            with self._lock:
                self._promised += size
                self._unwritten += size
            reservation = Reservation(self, size)
            reservation.settle(size)
            return reservation

    def _check_disk(self, size: int, unwritten: int) -> None:
        free = self._free_bytes()
        available = max(0, free - self._min_free - unwritten)
        if size <= available:
            return
        raise NoSpace(
            f"{size} bytes are needed and {available} are free for the store"
            f" ({free} on the filesystem, {self._min_free} kept free, {unwritten} promised to running jobs)",
            hint="Remove models with `modelctl rm NAME --now`, free space on its filesystem, or lower `min_free`.",
            details={
                "needed_bytes": size,
                "free_bytes": available,
                "filesystem_free_bytes": free,
                "min_free_bytes": self._min_free,
                "promised_bytes": unwritten,
            },
        )

    def _check_quota(self, size: int, promised: int) -> None:
        if self._max_bytes is None or self._used is None:
            return
        used = self._used()
        if used + promised + size <= self._max_bytes:
            return
        raise QuotaExceeded(
            f"{size} bytes are needed, and the store may hold {self._max_bytes}"
            f" ({used} are used, {promised} promised to running jobs)",
            hint="Remove models with `modelctl rm NAME --now`, or raise `max_bytes`.",
            details={
                "needed_bytes": size,
                "max_bytes": self._max_bytes,
                "used_bytes": used,
                "promised_bytes": promised,
            },
        )


class Allotment(Space):
    """Space for many files, reserved at once and given out file by file. It is released as a whole."""

    def __init__(self, whole: Reservation) -> None:
        super().__init__(lambda: 0)
        self._whole = whole

    def reserve(self, size: int) -> Reservation:
        return _Portion(self, self._whole, size)

    def adopt(self, size: int) -> Reservation:
        return _Portion(self, self._whole, size)

    def leave(self, path: str, size: int) -> None:
        self._whole.leave(path, size)


class _Portion(Reservation):
    __slots__ = ("_whole",)

    def __init__(self, space: Space, whole: Reservation, size: int) -> None:
        super().__init__(space, size)
        self._whole = whole

    def settle(self, size: int) -> None:
        self._whole.settle(size)

    def release(self) -> None:
        """Does nothing: the space that one file did not need stays reserved for the others."""
