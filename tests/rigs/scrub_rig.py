"""A store whose scrubs are observed: what they read, on a clock that a test moves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from modeld.progress import JobProgress
from modeld.store import Manner
from modeld.store.blobs import blobs
from modeld.store.blobs.background import Background
from modeld.store.catalog.scrubs import Look
from modeld.store.digest import Digest
from modeld.store.maintain import scrub as module
from modelwire.values import Scrubbed
from rigs.maintain_rig import Bench


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Scrubs(Bench):
    """A bench that knows what was read: (digest, whether by its hash)."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.monkeypatch = monkeypatch
        self.read: list[tuple[str, bool]] = []
        super().__init__(directory)
        compare, verify = blobs.compare_blob, blobs.verify_blob

        def compared(*arguments: Any, **more: Any) -> blobs.Compared:
            self.read.append((arguments[1].text, False))
            return compare(*arguments, **more)

        def verified(*arguments: Any, **more: Any) -> blobs.Verified:
            self.read.append((arguments[1].text, True))
            return verify(*arguments, **more)

        monkeypatch.setattr(blobs, "compare_blob", compared)
        monkeypatch.setattr(blobs, "verify_blob", verified)

    def open(self) -> None:
        super().open()
        self.store.scrubber.clock = self.clock
        self.store.scrubber.background = Background(None)

    async def scrub(
        self,
        *,
        since: float | None = None,
        every: float = 0.0,
        full: bool = False,
        progress: JobProgress | None = None,
        manner: Manner | None = None,
    ) -> Scrubbed:
        since = self.clock.now if since is None else since
        return await self.store.scrubber.scrub(
            since=since,
            before=since - every,
            full=full,
            manner=manner or Manner(),
            progress=progress or JobProgress(),
        )

    async def plan(self, *, since: float | None = None, every: float = 0.0) -> module.Plan:
        since = self.clock.now if since is None else since
        return await self.store.scrubber.plan(since=since, before=since - every)

    async def looked(self, digest: Digest, at: float, quick: int = 0) -> None:
        """Has a scrub have looked at a blob."""
        await self.store.scrubber.scrubs.looked([(digest, Look(at, quick, None))])

    def one_at_a_time(self) -> None:
        """Each blob in a batch of its own."""
        self.monkeypatch.setattr(module, "_AT_ONCE", 1)

    def sleep(self, seconds: float) -> None:
        self.clock.now += seconds

    async def outcomes(self, name: str) -> list[str]:
        return [past.outcome for past in (await self.store.models.show(name)).history]


def stop_after(progress: JobProgress, size: int) -> JobProgress:
    def look(now: JobProgress) -> None:
        if now.done >= size:
            now.stop_reason = "park"

    progress.add_listener(look)
    return progress
