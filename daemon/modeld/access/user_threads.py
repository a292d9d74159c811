"""One thread for each user whose files may make it wait for ever: they hold up no work but that user's own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from modeld.platform import peers

T = TypeVar("T")


class UserThreads:
    """A thread exists while its user has work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: dict[peers.UserId, deque[tuple[Future[Any], Callable[[], Any]]]] = {}

    def submit(self, uid: peers.UserId, call: Callable[[], T]) -> Future[T]:
        """Runs the call after those that the user's thread has already."""
        future: Future[T] = Future()
        with self._lock:
            runs = uid in self._work
            self._work.setdefault(uid, deque()).append((future, call))
        if not runs:
            threading.Thread(target=self._run, args=(uid,), name=f"files-{uid}", daemon=True).start()
        return future

    def _run(self, uid: peers.UserId) -> None:
        while True:
            with self._lock:
                if not self._work[uid]:
                    del self._work[uid]
                    return
                future, call = self._work[uid].popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
                    future.set_exception(error)
