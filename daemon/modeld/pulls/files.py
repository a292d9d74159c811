"""The files of one model: it finds those that are in the store and fetches the others, some at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from modeld.download.engine.budget import Share
from modeld.download.partials.partial import kept_bytes
from modeld.download.routes.events import OnEvent
from modeld.download.routes.router import Described
from modeld.download.source import FileInfo
from modeld.progress import FileProgress, JobProgress
from modeld.pulls.context import PullContext
from modeld.pulls.plan import Plan
from modeld.store import Digest
from modeld.store.ingest.ingest import ReadyFile, for_each

LITTLE: Final = 16 * 1024 * 1024
"""Bytes that are fetched again sooner than a person waits for a stop."""


@dataclass(slots=True, eq=False)
class _File:
    info: FileInfo
    """With the digest, once it is known."""

    said: bool
    """Whether the source says that these are its bytes, or has shown it by giving them all."""

    version: str | None
    """As `Plan.version`."""

    progress: FileProgress
    ready: ReadyFile | None = None

    @property
    def expected(self) -> Digest | None:
        """The digest that bytes from the source must have. By the time that it is asked for them it may have another
        version than it described: the digest of the described one finds bytes that are here, and no others."""
        return None if self.version is not None and self.info.validator is not None else self.info.digest

    @property
    def key(self) -> str:
        """Equal for the same bytes, and only for them."""
        if self.expected is not None:
            return self.expected.text
        return self.version or f"{self.info.origin}\0{self.info.locator}\0{self.info.validator or id(self)}"


class ModelFiles:
    """First `find`, then `fetch`. No sweep takes a file of either before `holds` is closed."""

    def __init__(
        self,
        context: PullContext,
        plan: Plan,
        files: Sequence[FileInfo],
        revision: str | None,
        progress: JobProgress,
        holds: ExitStack,
    ) -> None:
        self._context = context
        self._ingest = context.store.ingest
        self._requester = plan.publish_request.requester
        self._space = self._ingest.space_of(self._requester, plan.publish_request.name)
        self._route = plan.reference.key
        self._progress = progress
        self._holds = holds
        wanted = [replace(file, digest=plan.expected or file.digest) for file in files]
        self._files = [
            _File(file, plan.expected in (None, said.digest), plan.version(file, revision), each)
            for said, file, each in zip(files, wanted, progress.files([file.size for file in files]), strict=True)
        ]

    @property
    def infos(self) -> list[FileInfo]:
        """With the digests that are known by now."""
        return [file.info for file in self._files]

    @property
    def ready(self) -> list[ReadyFile]:
        return [file.ready for file in self._files if file.ready is not None]

    @property
    def said(self) -> bool:
        """Whether these are the files of the source, and not only those of the digest that the request gave. Call it
        when all are ready."""
        return all(file.said for file in self._files)

    @property
    def _missing(self) -> list[_File]:
        return [file for file in self._files if file.ready is None]

    # -- before the first byte

    async def find(self) -> bool:
        """Whether all files are in the store. Another call looks again for those that were not."""
        for file in self._missing:
            if file.version is not None:
                file.info = replace(file.info, digest=await self._context.memory.digest(file.version))
            await self._find(file)
        return not self._missing

    async def _find(self, file: _File) -> None:
        digest = file.info.digest
        blob = None
        if digest is not None:
            blob = await self._ingest.find(digest, self._holds, file.progress, self._requester, self._space)
        if blob is not None:
            file.progress.total(blob.size)
            file.progress.reuse(blob.size)
            file.progress.finished()
            file.ready = ReadyFile(path=file.info.path, content=blob, role=file.info.role)
            await self._remember(file, blob.digest)

    @property
    def resumable(self) -> bool:
        """Whether a later pull fetches only what is missing then, but for a little. Call it after `find`."""
        infos = [file.info for file in self._missing]
        whole = [info.size for info in infos if not (info.ranges and (info.validator or info.digest))]
        return all(size is not None and size <= LITTLE for size in whole)

    def check_room(self, described: Described[Any]) -> None:
        """Raises NoSpace, with the numbers, when all files together do not fit. Each one reserves its own room when
        its turn comes."""
        layout, missing = self._context.store.layout, 0
        for file in self._missing:
            if file.info.size is not None:
                offer = described.first_offer(file.info.path)
                kept = kept_bytes(layout, file.expected or offer.file.digest, offer.partial_key)
                missing += max(0, file.info.size - kept)
        self._space.reserve(missing).release()

    # -- bytes

    async def fetch(self, described: Described[Any], on_event: OnEvent, share: Share) -> list[ReadyFile]:
        """All files, in their order. When one fails the others stop, and the complete ones stay in the store."""
        if self._missing:
            await self._ingest.publishing.in_thread(partial(self.check_room, described))

        async def fetch(file: _File) -> None:
            await self._find(file)  # another job may have fetched it since
            if file.ready is None:
                await self._fetch(file, described, on_event, share)

        at_once = self._context.settings.transfer.files_at_once
        await for_each(self._missing, fetch, self._progress, at_once=at_once)
        return self.ready

    async def _fetch(self, file: _File, described: Described[Any], on_event: OnEvent, share: Share) -> None:
        info, shared = file.info, self._context.shared_downloads
        fetch_file = self._context.transfer.fetch_file
        work = partial(fetch_file, described, info, expected=file.expected, space=self._space)
        # Whoever asks for a digest may have named any file for it.
        route = f"{self._route}\0{info.path}"
        download = await shared.fetch(file.key, route, work, file.progress, on_event, share, self._holds)
        blob, fetched = download.blob, download.fetched
        described_now = download.route == route and fetched.as_described
        file.said = file.said or described_now
        file.ready = ReadyFile(
            path=info.path,
            content=blob,
            role=info.role,
            new=True,
            read=True,
            served=fetched.served,
            validator=info.validator if described_now else None,
            inspection=fetched.inspection,
        )
        file.progress.finished()
        if fetched.as_described:
            await self._remember(file, blob.digest)

    async def _remember(self, file: _File, digest: Digest) -> None:
        """Each time, since the memory forgets what is not used."""
        if file.version is not None:
            await self._context.memory.remember_digest(file.version, digest)
