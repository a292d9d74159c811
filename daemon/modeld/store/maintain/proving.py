"""Paths that are given out only after a closer look: trees that have to be made, bytes that may have changed.

What the event loop can tell by a few stats it tells itself (`Index.resolve`). Whoever asks for a model that takes more
waits here, while all others are answered: no path is ever given out for bytes that nobody has verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from modeld.progress import JobProgress, Stopped
from modeld.store.blobs.blobs import stat_blob
from modeld.store.catalog.history import NOBODY, Asker
from modeld.store.maintain.care import Care, nobody_is_told
from modeld.store.maintain.verify import Failed
from modeld.store.manifests.entries import Entry, cannot_be_used
from modeld.store.publish.publishing import Counter
from modeld.store.publish.records import Records
from modelwire.errors import Corrupt
from modelwire.values import Resolved, Verification

T = TypeVar("T")

MAX_ATTEMPTS: Final = 3
"""At a model that changes each time it is looked at."""


@dataclass(slots=True)
class _Turn:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    waiting: int = 0


class Proving:
    """For the event loop."""

    def __init__(self, counter: Counter, records: Records, care: Care) -> None:
        self._index = counter.index
        self._trees = counter.index.trees
        self._threads = counter.threads
        self._layout = counter.layout
        self._records = records
        self._care = care
        self._turns: dict[str, _Turn] = {}
        """By name: a hundred who ask for one model have it looked at once."""

    async def resolve(
        self, name: str, file: str | None = None, *, asker: Asker = NOBODY, failed: Failed = nobody_is_told
    ) -> Resolved:
        """As `Index.resolve`, with all the time that it takes."""
        for _attempt in range(MAX_ATTEMPTS):
            entry = self._index.find(name)
            with self._turn_at(entry) as turn:
                async with turn.lock:
                    if await self._prove(entry, asker, failed):
                        assert entry.resolved is not None, "an entry with a manifest resolves"
                        return entry.resolved if file is None else entry.resolved_file(file)
        raise Corrupt(
            f"'{name}' changes each time it is looked at",
            hint="find the program that writes to its files, then ask again",
            details={"name": name},
        )

    async def _prove(self, entry: Entry, asker: Asker, failed: Failed) -> bool:
        """Whether the entry can be given out as it is; raises when the model cannot be used."""
        manifest = entry.usable()
        reason = await self._in_thread(entry.missing)
        if reason is not None:
            raise cannot_be_used(entry, reason)
        if entry.suspects() and await self._not_verified_since(entry):
            await self._verify(entry, asker, failed)
            if await self._not_verified_since(entry):
                return False
        if entry.tree is not None:
            _, relinked = await self._in_thread(partial(self._trees.ensure, entry.name, manifest.files))
            await self._records.relinked(relinked)
        return True

    async def _not_verified_since(self, entry: Entry) -> bool:
        """Whether some bytes may have changed after they were last hashed: by this, or by a `verify` in between."""
        for digest, signature in (await self._records.verified_all(entry.suspects())).items():
            blob = await self._in_thread(partial(stat_blob, self._layout, digest))
            if blob is not None and blob.signature == signature:
                await self._in_thread(partial(self._trees.linked.good, digest, signature))
        return bool(entry.suspects())

    async def _verify(self, entry: Entry, asker: Asker, failed: Failed) -> None:
        verification = await self._verification(entry, asker, failed)
        if not verification.ok:
            bad = next(model for model in verification.models if not model.ok)
            raise cannot_be_used(entry, bad.reason or "its bytes are not what they were")

    async def _verification(self, entry: Entry, asker: Asker, failed: Failed) -> Verification:
        observer = JobProgress()
        ended: list[Verification | Exception] = []
        done = anyio.Event()

        async def verify() -> None:
            try:
                ended.append(await self._care.verify([entry.name.text], observer=observer, asker=asker, failed=failed))
            except Exception as fault:  # noqa: BLE001 - raised again below, out of the task group
                ended.append(fault)
            done.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(verify, name=f"verifying {entry.name.text}")
            try:
                await done.wait()
            finally:
                observer.stop_reason = "cancel"
        if isinstance(ended[0], Stopped):
            raise Corrupt(f"'{entry.name.text}' was not verified: the daemon is stopping", retryable=True)
        if isinstance(ended[0], Exception):
            raise ended[0]
        return ended[0]

    @contextmanager
    def _turn_at(self, entry: Entry) -> Iterator[_Turn]:
        turn = self._turns.setdefault(entry.name.text, _Turn())
        turn.waiting += 1
        try:
            yield turn
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(entry.name.text, None)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._threads)
