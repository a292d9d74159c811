"""Engines that load the models of updates: who they are, what they are asked, and what they answer.

An engine is a user with the role write who watches for the event that asks. A plain watcher sees it too, and is asked
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio

from modeld.jobs.job import AnyJob, Signal, first_of
from modeld.progress import Stopped
from modeld.store import Digest
from modelwire.errors import NotFound, TimedOut, Unsupported

REQUESTED: Final = "model.load_requested"
"""The event that asks. A subscription to events of this name is an engine's."""

RETURN_SECONDS: Final = 5.0
"""For engines to come back after a start of the daemon: until then, that none is here means nothing. A client that lost
its connection tries again within a second."""


@dataclass(slots=True, eq=False)
class _Asked:
    digest: Digest
    engines: frozenset[int]
    user: int
    """Whose command it is, and whose refusal counts alone."""

    refused: set[int] = field(default_factory=set)
    leased: bool = False
    refusal: str | None = None
    changed: Signal = field(default_factory=Signal)


class Loading:
    """For the event loop."""

    def __init__(self) -> None:
        self._engines: Counter[int] = Counter()
        self._asked: dict[str, _Asked] = {}
        self._came = Signal()

    @contextmanager
    def engine(self, uid: int) -> Iterator[None]:
        """While a subscription of an engine lasts."""
        self._engines[uid] += 1
        self._came.fire()
        try:
            yield
        finally:
            self._engines[uid] -= 1
            if not self._engines[uid]:
                del self._engines[uid]

    async def until_engines(self, seconds: float, job: AnyJob) -> bool:
        """Whether there is an engine. Waits for the first one, for a limited time. Raises Stopped when the job is
        stopped meanwhile."""
        with anyio.move_on_after(max(0.0, seconds)):
            while not self._engines:
                _check(job)
                await first_of(self._came, job.changed)
        return bool(self._engines)

    async def ask(
        self, command_id: str, digest: Digest, seconds: float, job: AnyJob, request: Callable[[], object]
    ) -> None:
        """Returns when an engine has leased the model. `request` records the event. Raises Unsupported when an engine
        refuses, TimedOut when none answers, Stopped when the job is stopped."""
        asked = self._asked[command_id] = _Asked(digest, frozenset(self._engines), job.peer)
        request()
        try:
            with anyio.move_on_after(seconds):
                while not asked.leased and asked.refusal is None:
                    _check(job)
                    await first_of(asked.changed, job.changed)
        finally:
            if self._asked.get(command_id) is asked:
                del self._asked[command_id]
        if asked.refusal is not None:
            raise Unsupported(
                f"an engine cannot load the new version: {asked.refusal}",
                hint="Look at the engine's own log.",
            )
        if not asked.leased:
            raise TimedOut(
                f"no engine has leased the new version within {seconds:g} s",
                hint="Look at the engine's own log; `load_within` in [node] of the configuration gives it more time.",
            )

    def leased(self, uid: int, blob: str) -> None:
        """Any lease of those bytes counts, under whatever name."""
        for asked in self._asked.values():
            if uid in asked.engines and asked.digest.text == blob:
                asked.leased = True
                asked.changed.fire()

    def refuse(self, uid: int, command_id: str, reason: str) -> None:
        """Another user's engine stops an update only when all engines refuse."""
        asked = self._asked.get(command_id)
        if asked is None or uid not in asked.engines or asked.leased:
            raise NotFound(
                f"no engine of uid {uid} is asked to load a model for command {command_id[:64]!r}",
                hint=f"An engine that watches for `{REQUESTED}` is asked once, and has a limited time to answer.",
            )
        asked.refused.add(uid)
        if asked.refusal is None and (uid == asked.user or asked.refused >= asked.engines):
            asked.refusal = reason
            asked.changed.fire()


def _check(job: AnyJob) -> None:
    if job.progress.stopped():
        raise Stopped
