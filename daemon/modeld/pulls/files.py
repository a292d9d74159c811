"""The files of one model from its source: it finds those that are in the store and fetches the others, some at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import anyio

from modeld.download.engine.budget import Share
from modeld.download.routes.events import OnEvent
from modeld.download.routes.router import Described
from modeld.download.source import FileInfo
from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.pulls.context import PullContext
from modeld.pulls.plan import Plan
from modeld.store import Digest
from modeld.store.ingest.ingest import Ingest, ReadyFile


async def find_file(
    ingest: Ingest, path: str, digest: Digest, role: str | None, holds: ExitStack, progress: FileProgress
) -> ReadyFile | None:
    """The file, when its blob is in the store. No sweep takes the blob before `holds` is closed."""
    blob = await ingest.find(digest, holds, progress)
    if blob is None:
        return None
    progress.total(blob.size)
    progress.advance(done=blob.size, reused=blob.size)
    progress.finished()
    return ReadyFile(path=path, content=blob, role=role)


class FileFetcher:
    """First `find`, then `fetch`. No sweep takes a file of either before `holds` is closed."""

    def __init__(
        self,
        context: PullContext,
        plan: Plan,
        described: Described[Any],
        files: Sequence[FileInfo],
        progress: JobProgress,
        on_event: OnEvent,
        holds: ExitStack,
    ) -> None:
        self._context = context
        self._ingest = context.store.ingest
        self._plan = plan
        self._described = described
        self._files = files
        revision = described.description.revision
        self._versions = [plan.version(file, revision) for file in files]
        self._job_progress = progress
        self._progress = progress.files([file.size for file in files])
        self._on_event = on_event
        self._holds = holds
        self._ready: dict[int, ReadyFile] = {}
        self.digests: list[Digest | None] = []
        """Of each file, None where it is not known."""

    # -- before the first byte

    async def find(self) -> None:
        for number, (file, version) in enumerate(zip(self._files, self._versions, strict=True)):
            digest = self._plan.expected or file.digest
            if digest is None and version is not None:
                digest = await self._context.memory.digest(version)
            self.digests.append(digest)
            if digest is None:
                continue
            progress = self._progress[number]
            found = await find_file(self._ingest, file.path, digest, file.role, self._holds, progress)
            if found is not None:
                self._ready[number] = found
                await self._remember(number, digest)

    def check_room(self) -> None:
        """Raises NoSpace, with the numbers, when all files together do not fit. Each one reserves its own room when
        its turn comes."""
        missing = 0
        for number, file in enumerate(self._files):
            if number not in self._ready and file.size is not None:
                missing += max(0, file.size - self._partial_bytes(self.digests[number]))
        self._ingest.space.reserve(missing).release()

    def _partial_bytes(self, digest: Digest | None) -> int:
        """What an earlier attempt has written to the disk."""
        if digest is None:
            return 0
        try:
            return os.stat(self._context.store.layout.partial(digest)).st_blocks * 512
        except OSError:
            return 0

    # -- bytes

    async def fetch(self, share: Share) -> list[ReadyFile]:
        """All files, in their order. When one fails the others stop, and the complete ones stay in the store."""
        missing = [number for number in range(len(self._files)) if number not in self._ready]
        if missing:
            await self._ingest.publishing.in_thread(self.check_room)
        limiter = anyio.CapacityLimiter(self._context.settings.transfer.files_at_once)
        faults: list[Exception] = []

        async def fetch_one(number: int) -> None:
            async with limiter:
                if faults:
                    return
                try:
                    await self._fetch(number, share)
                except Exception as fault:  # noqa: BLE001 - the first of them is raised below
                    faults.append(fault)
                    self._job_progress.stop_files()

        async with anyio.create_task_group() as tasks:
            for number in missing:
                tasks.start_soon(fetch_one, number)
        if faults:
            raise next((fault for fault in faults if not isinstance(fault, Stopped)), faults[0])
        return [self._ready[number] for number in range(len(self._files))]

    async def _fetch(self, number: int, share: Share) -> None:
        file, digest, progress = self._files[number], self.digests[number], self._progress[number]
        blob, fetched = await self._context.shared_downloads.fetch(
            self._key(number),
            self._plan.reference.key,
            partial(self._context.transfer.fetch_file, self._described, file, expected=digest),
            progress,
            self._on_event,
            share,
        )
        self._holds.enter_context(self._ingest.holds.relying_on(blob.digest))
        self._ready[number] = ReadyFile(
            path=file.path, content=blob, role=file.role, new=True, served=fetched.served, learned=fetched.learned
        )
        progress.finished()
        if fetched.as_described:
            await self._remember(number, blob.digest)

    def _key(self, number: int) -> str:
        """Equal for the same bytes, and only for them."""
        file, digest = self._files[number], self.digests[number]
        if digest is not None:
            return digest.text
        return self._versions[number] or f"{file.origin}\0{file.locator}\0{file.validator or id(self)}"

    async def _remember(self, number: int, digest: Digest) -> None:
        """The digest of a version whose source reports none; each time, since the memory forgets what is not used.

        Not when the request names the digest: the bytes may then come from elsewhere, and this version may differ.
        """
        version = self._versions[number]
        if version is not None and self._files[number].digest is None and self._plan.expected is None:
            await self._context.memory.remember_digest(version, digest)
