"""The files of one model from their sources: those that are here are found, the others fetched, some at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import anyio

from modeld.download.engine.budget import Share
from modeld.download.routes.events import OnEvent
from modeld.download.routes.router import Described
from modeld.download.source import FileInfo
from modeld.progress import JobProgress, Stopped
from modeld.pulls.context import PullContext
from modeld.pulls.plan import Plan
from modeld.store import Digest
from modeld.store.ingest.ingest import ReadyFile


class FileFetcher:
    """First `look`, then `run`. What it finds and fetches is kept from sweeps until `held` is closed."""

    def __init__(
        self,
        context: PullContext,
        plan: Plan,
        described: Described[Any],
        files: Sequence[FileInfo],
        progress: JobProgress,
        on_event: OnEvent,
        held: ExitStack,
    ) -> None:
        self._context = context
        self._ingest = context.store.ingest
        self._plan = plan
        self._described = described
        self._files = files
        self._job = progress
        self._progress = progress.files([file.size for file in files])
        self._on_event = on_event
        self._held = held
        self._arrived: dict[int, ReadyFile] = {}
        self.digests: list[Digest | None] = []
        """Of each file, None where it is not known."""
        self.served: Counter[str] = Counter()

    # -- before the first byte

    async def look(self) -> None:
        """What is here already."""
        for number, file in enumerate(self._files):
            digest = self._plan.expected or file.digest or await self._seen(file)
            self.digests.append(digest)
            if digest is None:
                continue
            progress = self._progress[number]
            blob = await self._ingest.find(digest, self._held, progress)
            if blob is not None:
                progress.total(blob.size)
                progress.advance(done=blob.size, reused=blob.size)
                progress.finished()
                self._arrived[number] = ReadyFile(path=file.path, content=blob, role=file.role)
                await self._remember(file, digest)

    def check_room(self) -> None:
        """For all files at once; each asks again for itself when its turn comes. NoSpace with the numbers."""
        missing = 0
        for number, file in enumerate(self._files):
            if number not in self._arrived and file.size is not None:
                missing += max(0, file.size - self._partial_bytes(self.digests[number]))
        self._ingest.space.reserve(missing).release()

    def _partial_bytes(self, digest: Digest | None) -> int:
        """What an earlier attempt has put onto the disk."""
        if digest is None:
            return 0
        try:
            return os.stat(self._context.store.layout.partial(digest)).st_blocks * 512
        except OSError:
            return 0

    # -- bytes

    async def run(self, share: Share) -> list[ReadyFile]:
        """All files, in their order. When one fails the others stop, and what has arrived stays."""
        if len(self._files) > len(self._arrived):
            self.check_room()
        limiter = anyio.CapacityLimiter(self._context.settings.transfer.files_at_once)
        faults: list[Exception] = []

        async def one(number: int) -> None:
            async with limiter:
                if faults:
                    return
                try:
                    await self._fetch(number, share)
                except Exception as fault:  # noqa: BLE001 - the first of them is raised below
                    faults.append(fault)
                    self._job.stop_files()

        async with anyio.create_task_group() as tasks:
            for number in range(len(self._files)):
                if number not in self._arrived:
                    tasks.start_soon(one, number)
        if faults:
            raise next((fault for fault in faults if not isinstance(fault, Stopped)), faults[0])
        return [self._arrived[number] for number in range(len(self._files))]

    async def _fetch(self, number: int, share: Share) -> None:
        file, digest, progress = self._files[number], self.digests[number], self._progress[number]
        work = partial(self._context.transfer.fetch_file, self._described, file, expected=digest)
        blob, served, as_described, learned = await self._context.shared_downloads.fetch(
            self._key(file, digest),
            self._plan.reference.key,
            lambda shared, on_event, pace: work(progress=shared, on_event=on_event, pace=pace),
            progress,
            self._on_event,
            share,
        )
        self.served.update(served)
        self._held.enter_context(self._ingest.holds.relying_on(blob.digest))
        self._arrived[number] = ReadyFile(
            path=file.path, content=blob, role=file.role, new=True, served=served, learned=learned
        )
        progress.finished()
        if as_described:
            await self._remember(file, blob.digest)

    # -- versions

    def _version(self, file: FileInfo) -> str | None:
        return self._plan.version(file, self._described.description.revision)

    def _key(self, file: FileInfo, digest: Digest | None) -> str:
        """Equal for the same bytes, and only for them."""
        if digest is not None:
            return digest.text
        return self._version(file) or f"{file.origin}\0{file.locator}\0{file.validator or id(self)}"

    async def _seen(self, file: FileInfo) -> Digest | None:
        version = self._version(file)
        return None if version is None else await self._context.memory.seen(version)

    async def _remember(self, file: FileInfo, digest: Digest) -> None:
        """What a version turned out to be of which its source tells no digest; again each time, as a sign of use.

        Not when the user said the digest: then the bytes may be here from elsewhere, and this version another.
        """
        version = self._version(file)
        if version is not None and file.digest is None and self._plan.expected is None:
            await self._context.memory.saw(version, digest)
