"""A store, a plan and a source with the answers that a test sets: pulls without a network."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from modeld.config import Settings
from modeld.download.engine.assembly import Fetched
from modeld.download.engine.budget import Budget
from modeld.download.engine.downloads import Transfer
from modeld.download.routes.events import unheard
from modeld.download.routes.router import Described, Offer
from modeld.download.source import Description, FileInfo, Opener
from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.pulls.context import PullContext
from modeld.pulls.files import ModelFiles
from modeld.pulls.memory import RemoteModel
from modeld.pulls.plan import Plan
from modeld.sources.parse import parse
from modeld.store import Digest
from modeld.store.catalog.history import THE_DAEMON, Requester
from modeld.store.ingest.copying import Source, stage_copy
from modeld.store.ingest.ingest import ReadyFile
from modeld.store.ingest.staged import Staged
from modelwire.requests import ModelPull
from rigs.adding_rig import Bench
from rigs.download_rig import digest_of

WAIT = 10


@dataclass(slots=True, kw_only=True, eq=False)
class StagedDouble(Staged):
    """A double of a fetched file: its bytes are staged."""

    served: Mapping[str, int]
    as_described: bool


class Downloads:
    """Returns the bytes of a path from `answers`, or raises the fault; None makes it wait until it is stopped."""

    def __init__(self, bench: PullBench) -> None:
        self._bench = bench
        self.answers: dict[str, bytes | Exception | None] = {}
        self.begun: list[str] = []
        self.expected: list[Digest | None] = []
        """What the bytes that were begun had to be."""

        self.stopped: list[str] = []
        self.as_described = True
        self._held: dict[str, threading.Event] = {}
        self.waits = threading.Event()
        """Set when a download waits. A fault is raised only then, when `answers` has a download that waits."""

    def hold(self, path: str) -> threading.Event:
        """The bytes of this path come when the event is set."""
        return self._held.setdefault(path, threading.Event())

    def fetch_file(
        self, _described: object, file: FileInfo, *, expected: Digest | None, progress: FileProgress, **_: object
    ) -> Fetched:
        self.begun.append(file.path)
        self.expected.append(expected)
        progress.phase("download")
        answer = self.answers[file.path]
        if file.path in self._held:
            assert self._held[file.path].wait(WAIT)
        if answer is None:
            self._wait(file.path, progress)
        if isinstance(answer, Exception):
            assert None not in self.answers.values() or self.waits.wait(WAIT)
            raise answer
        assert answer is not None
        progress.advance(done=len(answer), verified=len(answer), network=len(answer))
        return cast("Fetched", self._bench.staged_double(answer, as_described=self.as_described))

    def _wait(self, path: str, progress: FileProgress) -> None:
        self.waits.set()
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            if progress.stopped():
                self.stopped.append(path)
                raise Stopped
            time.sleep(0.005)


class PullBench(Bench):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.downloads = Downloads(self)
        self.context = PullContext(self.store, self.catalog, Settings(), {})
        self.context.transfer = cast("Transfer", self.downloads)
        self.holds = ExitStack()
        self.progress = JobProgress()

    def close(self) -> None:
        self.holds.close()
        super().close()

    # -- plans

    def plan(
        self, ref: str = "hf:org/repo", *, name: str = "m", requester: Requester = THE_DAEMON, **fields: Any
    ) -> Plan:
        request, publishing = ModelPull(id="1", ref=ref, name=name, **fields), self.store.ingest.publishing
        return Plan(request, parse(ref), publishing, requester=requester, order=0, progress=self.progress)

    # -- the store

    async def stored_file(self, content: bytes, path: str = "m.gguf") -> ReadyFile:
        """Adds these bytes to the store, as a file of a model."""
        await self.store.add(self.file("blob", content), name=f"blob-{digest_of(content).hex[:8]}")
        blob = await self.store.ingest.find_here(digest_of(content), FileProgress())
        assert blob is not None
        return ReadyFile(path=path, content=blob)

    async def publish(self, plan: Plan, files: Sequence[ReadyFile], model: RemoteModel) -> None:
        """The model of an earlier pull."""
        request, _ = plan.publication(files, model, asked=True)
        origin = plan.origin([file.path for file in files], None)
        await self.store.ingest.publish(request, files, plan.source(files, model), origin=origin, alone=len(files) == 1)

    def staged_double(self, content: bytes, *, as_described: bool) -> StagedDouble:
        path = self.file(f"fetched-{digest_of(content).hex[:8]}", content)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            source = Source.of(descriptor, path)
            staged = stage_copy(self.layout, source, space=self.store.ingest.space, progress=FileProgress())
        finally:
            os.close(descriptor)
        of_copy = {field.name: getattr(staged, field.name) for field in fields(staged)}
        return StagedDouble(**of_copy, served={"hub": len(content)}, as_described=as_described)

    # -- fetching

    def files(self, plan: Plan, files: Sequence[FileInfo], revision: str | None = None) -> ModelFiles:
        return ModelFiles(self.context, plan, plan.choose(files), revision, self.progress, self.holds)

    async def fetched(self, files: ModelFiles) -> list[ReadyFile]:
        return await files.fetch(described(files.infos), unheard, Budget().share())


def described(files: Sequence[FileInfo]) -> Described[Any]:
    return cast("Described[Any]", _Described(Description(source="hub", files=tuple(files), registry="hub")))


@dataclass
class _Described:
    description: Description

    def first_offer(self, path: str) -> Offer:
        (file,) = (file for file in self.description.files if file.path == path)
        return Offer(cast("Opener", SimpleNamespace(name="hub")), file)
