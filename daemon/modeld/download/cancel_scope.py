"""The network work of one thread: it has a total deadline, and another thread can end it.

As the cancel scopes of anyio, for threads that block. Whatever blocks inside registers what wakes it: the abort of a
socket, the kill of a child process. `cancel` wakes all of it, and what would block later is refused at once.

A thread finds its scope by a context variable. Between the job that is left and the socket that hangs stand the
sources, each with its own requests; they would all pass the scope on, and none would use it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType

from modeld.progress import Stopped


class Overdue(TimeoutError):
    """The total time is over, although something may still come."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not done within {seconds:g} s")
        self.seconds = seconds


class CancelScope:
    """Entered by one thread; a scope within another ends with it. `cancel` may be called by any thread, also before
    the scope is entered."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._cancelled = False
        self._outer: CancelScope | None = None
        self._inner: CancelScope | None = None
        self._wakers: dict[object, Callable[[], None]] = {}
        self._token: Token[CancelScope | None] | None = None
        self.until = math.inf
        """By the monotonic clock."""

        self.limit = seconds
        """The seconds of the scope, this or one around it, that ends at `until`."""

    @staticmethod
    def current() -> CancelScope:
        """The innermost scope of this thread; a new one, which nothing cancels, when there is none."""
        return _CURRENT.get() or CancelScope()

    def __enter__(self) -> CancelScope:
        self._outer = outer = _CURRENT.get()
        self.until, self.limit = time.monotonic() + self._seconds, self._seconds
        if outer is not None:
            if outer.until <= self.until:
                self.until, self.limit = outer.until, outer.limit
            with outer._lock:
                outer._inner = self
                self._cancelled = self._cancelled or outer._cancelled
        self._token = _CURRENT.set(self)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        _CURRENT.reset(self._token)
        with self._lock:
            self._wakers.clear()
        if self._outer is not None:
            with self._outer._lock:
                self._outer._inner = None

    def cancel(self) -> None:
        """Wakes what blocks in the scope, and makes it raise Stopped."""
        with self._lock:  # what was released by `release` is not woken: it may belong to another thread by now
            self._cancelled = True
            inner = self._inner
            for wake in self._wakers.values():
                wake()
        if inner is not None:
            inner.cancel()

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    # -- for what blocks

    def wait(self, longest: float | None = None) -> float:
        """How long to block at most. Raises Stopped and Overdue."""
        if self._cancelled:
            raise Stopped
        left = self.until - time.monotonic()
        if left <= 0:
            raise Overdue(self.limit)
        return left if longest is None else min(left, longest)

    def cause(self, fault: Exception) -> Exception:
        """The reason of a fault within the scope: Overdue, when its time is over. Raises Stopped when it was cancelled,
        after which a socket may fail in any way."""
        try:
            self.wait()
        except Overdue as overdue:
            return overdue
        return fault

    def register(self, key: object, wake: Callable[[], None]) -> None:
        """Until `release` of this key, or the end of the scope, `cancel` calls `wake`, which must not block."""
        with self._lock:
            if self._cancelled:
                raise Stopped
            self._wakers[key] = wake

    def release(self, key: object) -> None:
        with self._lock:
            self._wakers.pop(key, None)

    @contextmanager
    def woken_by(self, wake: Callable[[], None]) -> Iterator[None]:
        key = object()
        self.register(key, wake)
        try:
            yield
        finally:
            self.release(key)


_CURRENT: ContextVar[CancelScope | None] = ContextVar("cancel_scope", default=None)
