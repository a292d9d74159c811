"""Names and groups of users, looked up in a thread of its own and cached.

A directory server may take seconds, or never answer. So the event loop never calls the system: one thread does, for one
user after the other, and callers wait for a limited time. The thread is not a worker of the event loop, because the
process joins those when it ends, and a look-up that hangs cannot be ended.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio

from modeld.platform import accounts as system
from modeld.platform import peers
from modelwire.errors import TimedOut

ACCOUNT_SECONDS: Final = 60.0
"""How long an account is cached. A directory server gets one request a minute for each user, and a user that is removed
from a group loses its role within that minute."""

ACCOUNT_ENTRIES: Final = 1024
"""The bound of the cache: a user with subordinate uids can connect under 65,536 of them."""

LOOK_UP_SECONDS: Final = 10.0
"""How long a connection or a job waits: less than the 15 s or more after which clients of directory servers give up on
one server. A later answer is cached for the next attempt."""

MAX_LOOK_UPS: Final = 64
"""Users that may wait for a look-up: behind one that hangs, more would only wait in vain."""


class _LookUp:
    """The look-up of one user, which any number of callers wait for."""

    __slots__ = ("account", "done")

    def __init__(self) -> None:
        self.account: system.Account | None = None
        self.done = anyio.Event()


class Accounts:
    """Belongs to one event loop; all methods are called on its thread."""

    def __init__(self, *, timeout: float = LOOK_UP_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._clock = clock
        self._known: dict[peers.UserId, tuple[float, system.Account]] = {}
        self._running: dict[peers.UserId, _LookUp] = {}
        self._lock = threading.Lock()
        self._waiting: deque[peers.UserId] = deque()
        self._working = False

    def known(self, uid: peers.UserId) -> system.Account | None:
        """The account, if it is cached."""
        cached = self._known.get(uid)
        return cached[1] if cached is not None and self._clock() < cached[0] else None

    async def account_of(self, uid: peers.UserId) -> system.Account:
        """The account as the system has it now or had it within the last minute. Raises TimedOut."""
        known = self.known(uid)
        if known is not None:
            return known
        look_up = self._running.get(uid)
        if look_up is None:
            if len(self._running) >= MAX_LOOK_UPS:
                raise _too_slow(uid, f"{MAX_LOOK_UPS} users are being looked up already")
            look_up = self._running[uid] = _LookUp()
            self._ask(uid)
        with anyio.move_on_after(self._timeout):
            await look_up.done.wait()
        if look_up.account is None:
            raise _too_slow(uid, f"the system gave no answer within {self._timeout:g} s")
        return look_up.account

    def _ask(self, uid: peers.UserId) -> None:
        with self._lock:
            self._waiting.append(uid)
            if self._working:
                return
            self._working = True
        thread = threading.Thread(target=self._work, args=(asyncio.get_running_loop(),), name="accounts", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system starts no more threads
            self._working = False
            self._waiting.clear()
            del self._running[uid]
            raise _too_slow(uid, str(error)) from error

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Runs in the thread, until no look-up waits."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._working = False
                    return
                uid = self._waiting.popleft()
            account = system.account_of(uid)
            with suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(self._answered, uid, account)

    def _answered(self, uid: peers.UserId, account: system.Account) -> None:
        if len(self._known) >= ACCOUNT_ENTRIES:
            # Subordinate uids have no account: whoever connects under many of them does not make others be looked up.
            self._known = {each: known for each, known in self._known.items() if known[1] != system.UNKNOWN}
            if len(self._known) >= ACCOUNT_ENTRIES:
                self._known.clear()
        self._known[uid] = (self._clock() + ACCOUNT_SECONDS, account)
        look_up = self._running.pop(uid)
        look_up.account = account
        look_up.done.set()


def _too_slow(uid: peers.UserId, why: str) -> TimedOut:
    return TimedOut(
        f"the groups of uid {uid} cannot be looked up: {why}",
        hint="Try again in a moment. If it fails again, check the machine's directory service (`getent passwd`).",
        details={"uid": uid},
    )
