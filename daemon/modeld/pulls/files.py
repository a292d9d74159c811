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
from modeld.download.routes.router import Described
from modeld.download.source import FileInfo
from modeld.progress import JobProgress, Stopped
from modeld.pulls.events import Telling
from modeld.pulls.memory import version_of
from modeld.pulls.shared import Workshop
from modeld.sources.reference import Reference
from modeld.store import Digest
from modeld.store.ingest.downloaded import Arrived
from modeld.store.manifests.manifests import File


class Fetch:
    def __init__(
        self,
        workshop: Workshop,
        reference: Reference,
        described: Described[Any],
        files: Sequence[FileInfo],
        expected: Digest | None,
        progress: JobProgress,
        telling: Telling,
        held: ExitStack,
    ) -> None:
        self._workshop = workshop
        self._arrivals = workshop.store.arrivals
        self._reference = reference
        self._described = described
        self._files = files
        self._expected = expected
        self._telling = telling
        self._held = held
        self._job = progress
        self._progress = progress.files([file.size for file in files])
        self._digests: list[Digest | None] = []
        self._arrived: dict[int, Arrived] = {}
        self.served: Counter[str] = Counter()

    # -- before the first byte

    async def look(self) -> None:
        """What is here already."""
        for number, file in enumerate(self._files):
            digest = self._expected or file.digest or await self._seen(file)
            self._digests.append(digest)
            if digest is None:
                continue
            progress = self._progress[number]
            blob = await self._arrivals.find(digest, self._held, progress)
            if blob is not None:
                progress.total(blob.size)
                progress.advance(done=blob.size, reused=blob.size)
                progress.finished()
                self._arrived[number] = Arrived(path=file.path, blob=blob, role=file.role)
                await self._remember(file, digest)

    def as_wanted(self) -> list[File] | None:
        """The files as a manifest would have them; None while some digest is not known."""
        if any(digest is None for digest in self._digests):
            return None
        return [
            File(path=file.path, blob=digest.text, size_bytes=file.size or 0, role=file.role)
            for file, digest in zip(self._files, self._digests, strict=True)
            if digest is not None
        ]

    def check_room(self) -> None:
        """For all files at once; each asks again for itself when its turn comes. NoSpace with the numbers."""
        missing = 0
        for number, file in enumerate(self._files):
            if number not in self._arrived and file.size is not None:
                missing += max(0, file.size - self._partial_bytes(self._digests[number]))
        self._arrivals.space.reserve(missing).release()

    def _partial_bytes(self, digest: Digest | None) -> int:
        """What an earlier attempt has put onto the disk."""
        if digest is None:
            return 0
        try:
            return os.stat(self._arrivals.layout.partial(digest)).st_blocks * 512
        except OSError:
            return 0

    # -- bytes

    async def run(self, share: Share) -> list[Arrived]:
        """All files, in their order. When one fails the others stop, and what has arrived stays."""
        if len(self._files) > len(self._arrived):
            self.check_room()
        limiter = anyio.CapacityLimiter(self._workshop.settings.transfer.files_at_once)
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
        file, digest, progress = self._files[number], self._digests[number], self._progress[number]
        work = partial(self._workshop.transfer.fetch_file, self._described, file, expected=self._expected or digest)
        blob, served, as_described = await self._workshop.flights.fetch(
            self._key(file, digest),
            self._reference.key,
            lambda followed, on_event, pace: work(progress=followed, on_event=on_event, pace=pace),
            progress,
            self._telling.transfer,
            share,
        )
        self.served.update(served)
        self._held.enter_context(self._arrivals.relying_on(blob.digest))
        self._arrived[number] = Arrived(path=file.path, blob=blob, role=file.role, fetched=True, served=served)
        progress.finished()
        if as_described:
            await self._remember(file, blob.digest)

    # -- what it is called

    def _key(self, file: FileInfo, digest: Digest | None) -> str:
        """Equal for the same bytes, and only for them."""
        if digest is not None:
            return digest.text
        return self._version(file) or f"{file.origin}\0{file.locator}\0{file.validator or id(self)}"

    async def _seen(self, file: FileInfo) -> Digest | None:
        version = self._version(file)
        return None if version is None else await self._workshop.memory.seen(version)

    async def _remember(self, file: FileInfo, digest: Digest) -> None:
        """What a version turned out to be of which its source tells no digest; again each time, as a sign of use.

        Not when the user said the digest: then the bytes may be here from elsewhere, and this version another.
        """
        version = self._version(file)
        if version is not None and file.digest is None and self._expected is None:
            await self._workshop.memory.saw(version, digest)

    def _version(self, file: FileInfo) -> str | None:
        """One that its source names: by a validator, or by an immutable revision of all that it has."""
        stands = file.validator or self._described.description.revision
        if stands is None or self._reference.secrets:
            return None
        return version_of(file.origin or "", file.locator, f"{stands} {file.size}")
