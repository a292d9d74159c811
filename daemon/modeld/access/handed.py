"""Files that clients have opened and handed over: counted by user, and closed exactly once.

A transfer belongs to its connection until a request takes it, and then to the job of that request. Its descriptors are
closed in a thread of their user: to close a file can wait for the program that serves it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from modeld.access.user_threads import UserThreads
from modeld.platform import peers
from modelwire.errors import QueueFull
from modelwire.limits import DESCRIPTORS_PER_PEER

_RETRY_AFTER_MS = 1000


class HandedFiles:
    """The open files of one transfer, by their paths in the model. Its owner closes it."""

    def __init__(self, of: Descriptors, uid: peers.UserId, *, directory: bool) -> None:
        self.id = secrets.token_hex(16)
        """Unique over all runs of the daemon: a job of an earlier run finds no files under it."""
        self.uid = uid
        self.directory = directory
        self._of = of
        self._lock = threading.Lock()
        self._files: dict[str, int] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, path: str) -> bool:
        return path in self._files

    @property
    def paths(self) -> list[str]:
        return list(self._files)

    def add(self, paths: Sequence[str], descriptors: Sequence[int]) -> None:
        """Owns the descriptors from now on."""
        self._files |= zip(paths, descriptors, strict=True)

    def open(self, path: str) -> int:
        """Another descriptor of the same open file, whose position and flags the client shares: read it by offset
        only. OSError once the transfer is closed, KeyError when it has no such file. Any thread may call it."""
        with self._lock:
            if self._closed:
                raise OSError("the transfer has ended")
            return os.dup(self._files[path])

    async def examine(self, look: Callable[[str, int], None]) -> None:
        """Calls `look` with each path and its descriptor, in the thread of the user."""

        def every() -> None:
            for path in self.paths:
                descriptor = self.open(path)
                try:
                    look(path, descriptor)
                finally:
                    os.close(descriptor)

        await asyncio.wrap_future(self._of.examine(self.uid, every))

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            descriptors = () if self._closed else tuple(self._files.values())
            self._closed = True
        self._of.forget(self)
        self._of.close(self.uid, descriptors)


class Descriptors:
    """Those of all clients, and the transfers of requests and jobs by their ids."""

    def __init__(
        self, limit: int = DESCRIPTORS_PER_PEER, user_of: Callable[[peers.UserId], peers.UserId] = lambda uid: uid
    ) -> None:
        """`user_of` returns the uid that counts for another."""
        self._user_of = user_of
        self.threads = UserThreads()
        self._limit = limit
        self._lock = threading.Lock()
        self._open: Counter[peers.UserId] = Counter()
        self._taken: dict[str, HandedFiles] = {}

    def count(self, uid: peers.UserId, descriptors: Sequence[int]) -> None:
        """Counts descriptors that have arrived until they are closed. Raises QueueFull when the user has too many, and
        closes these."""
        uid = self._user_of(uid)
        with self._lock:
            before = self._open[uid]
            self._open[uid] += len(descriptors)
        if before + len(descriptors) > self._limit:
            self.close(uid, descriptors)
            raise QueueFull(
                f"uid {uid} already has {before} open files handed over, of {self._limit} that one user may have",
                hint="Wait until the models that they belong to are added, or add a big directory in parts.",
                retry_after_ms=_RETRY_AFTER_MS,
                details={"descriptors": before, "limit": self._limit},
            )

    def examine(self, uid: peers.UserId, look: Callable[[], None]) -> Future[None]:
        return self.threads.submit(self._user_of(uid), look)

    def close(self, uid: peers.UserId, descriptors: Sequence[int]) -> None:
        """Closes counted descriptors in the thread of the user; they count until then."""
        uid = self._user_of(uid)
        if descriptors:
            self.threads.submit(uid, partial(self._close, uid, descriptors))

    def _close(self, uid: peers.UserId, descriptors: Sequence[int]) -> None:
        for descriptor in descriptors:
            with suppress(OSError):
                os.close(descriptor)
            with self._lock:
                self._open[uid] -= 1
                if not self._open[uid]:
                    del self._open[uid]

    def remember(self, files: HandedFiles) -> None:
        """Makes the transfer known by its id until it is closed."""
        self._taken[files.id] = files

    def forget(self, files: HandedFiles) -> None:
        self._taken.pop(files.id, None)

    def known(self, transfer: str) -> HandedFiles | None:
        return self._taken.get(transfer)
