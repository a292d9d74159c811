"""Names and groups of users, asked for in a thread of its own and remembered for a while.

A directory server may take seconds, or never answer. So the event loop never asks the system: one thread does, one
user after the other, and whoever waits gives up after a time. The thread is no worker of the event loop's, because the
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
"""How long an account is remembered. A directory server is asked once a minute and user, and a user who is taken out of
a group loses its right within that minute."""

ACCOUNT_ENTRIES: Final = 1024
"""A user with subordinate uids can appear under 65,536 of them; the memory for strangers stays bounded."""

LOOK_UP_SECONDS: Final = 10.0
"""How long a connection or a job waits: less than the 15 s or more after which clients of directory servers give up on
one server. An answer that comes later is remembered for the next attempt."""

MOST_WAITING: Final = 64
"""Users that are asked for at the same time: behind one that hangs, more would only wait in vain."""


class _LookUp:
    """One user that the thread is asked for, and all who wait for the answer."""

    __slots__ = ("account", "done")

    def __init__(self) -> None:
        self.account: system.Account | None = None
        self.done = anyio.Event()


class Accounts:
    """Belongs to one event loop; all methods are called on its thread."""

    def __init__(self, *, patience: float = LOOK_UP_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._known: dict[peers.UserId, tuple[float, system.Account]] = {}
        self._running: dict[peers.UserId, _LookUp] = {}
        self._lock = threading.Lock()
        self._waiting: deque[peers.UserId] = deque()
        self._working = False

    def known(self, uid: peers.UserId) -> system.Account | None:
        """The account, if it is remembered."""
        remembered = self._known.get(uid)
        return remembered[1] if remembered is not None and self._clock() < remembered[0] else None

    async def account_of(self, uid: peers.UserId) -> system.Account:
        """The account as the system has it now or had it within the last minute. TimedOut when that takes too long."""
        known = self.known(uid)
        if known is not None:
            return known
        look_up = self._running.get(uid)
        if look_up is None:
            if len(self._running) >= MOST_WAITING:
                raise _too_slow(uid, f"{MOST_WAITING} users are being looked up already")
            look_up = self._running[uid] = _LookUp()
            self._ask(uid)
        with anyio.move_on_after(self._patience):
            await look_up.done.wait()
        if look_up.account is None:
            raise _too_slow(uid, f"the system gave no answer within {self._patience:g} s")
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
        except RuntimeError as error:  # the machine gives no further thread
            self._working = False
            self._waiting.clear()
            del self._running[uid]
            raise _too_slow(uid, str(error)) from error

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread: ends when nothing waits any more."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._working = False
                    return
                uid = self._waiting.popleft()
            account = system.account_of(uid)
            with suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(self._answered, uid, account)

    def _answered(self, uid: peers.UserId, account: system.Account) -> None:
        if len(self._known) >= ACCOUNT_ENTRIES:
            self._known.clear()
        self._known[uid] = (self._clock() + ACCOUNT_SECONDS, account)
        look_up = self._running.pop(uid)
        look_up.account = account
        look_up.done.set()


def _too_slow(uid: peers.UserId, why: str) -> TimedOut:
    return TimedOut(
        f"the groups of uid {uid} cannot be looked up: {why}",
        hint="Try again in a moment. If it goes on, look at the machine's directory service (`getent passwd`).",
        details={"uid": uid},
    )
