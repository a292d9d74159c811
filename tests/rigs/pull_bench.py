"""A store, a plan and a source of which a test says what it gives: pulls without a network."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from modeld.config import Settings
from modeld.download.engine.assembly import Fetched
from modeld.download.engine.downloads import Transfer
from modeld.download.routes.events import unheard
from modeld.download.routes.router import Described
from modeld.download.source import Description, FileInfo
from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.pulls.context import PullContext
from modeld.pulls.files import FileFetcher
from modeld.pulls.memory import Meaning
from modeld.pulls.plan import Plan
from modeld.sources.parse import parse
from modeld.store import Requester
from modeld.store.ingest.copying import stage_copy
from modeld.store.ingest.ingest import ReadyFile
from modeld.store.ingest.staged import Staged
from modeld.store.publish.publishing import PublishRequest
from modelwire.requests import ModelPull
from rigs.adding_rig import Bench
from rigs.download_rig import digest_of

WAIT = 10


@dataclass(slots=True, kw_only=True, eq=False)
class Staging(Staged):
    """What stands for a fetched file: its bytes are staged, and it counts how it ends."""

    served: Mapping[str, int]
    as_described: bool
    kept: int = 0

    def keep(self) -> None:
        self.kept += 1
        self.discard()


class Downloads:
    """Gives what `gives` says for a path: its bytes, a fault, or None: then it waits until it is stopped."""

    def __init__(self, bench: PullBench) -> None:
        self._bench = bench
        self.gives: dict[str, bytes | Exception | None] = {}
        self.begun: list[str] = []
        self.stopped: list[str] = []
        self.as_described = True
        self.waits = threading.Event()
        """Set when some download waits; a fault comes only then, when one is to wait."""

    def fetch_file(self, _described: object, file: FileInfo, *, progress: FileProgress, **_: object) -> Fetched:
        self.begun.append(file.path)
        progress.phase("download")
        given = self.gives[file.path]
        if given is None:
            self._wait(file.path, progress)
        if isinstance(given, Exception):
            assert None not in self.gives.values() or self.waits.wait(WAIT)
            raise given
        assert given is not None
        progress.advance(done=len(given), verified=len(given), network=len(given))
        return cast("Fetched", self._bench.staging(given, as_described=self.as_described))

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
        context = PullContext.open(self.store, self.catalog, Settings(), {})
        self.context = replace(context, transfer=cast("Transfer", self.downloads))
        self.held = ExitStack()
        self.progress = JobProgress()

    def close(self) -> None:
        self.held.close()
        super().close()

    # -- plans

    def plan(self, ref: str = "hf:org/repo", *, name: str = "m", **fields: Any) -> Plan:
        request = ModelPull(id="1", ref=ref, name=name, **fields)
        return Plan(request, parse(ref), self.store.ingest.publishing)

    def publish_request(self, plan: Plan) -> PublishRequest:
        """As a pull begins with."""
        replaces = plan.request.replace or plan.follows(self.store.ingest.publishing.index.entry(plan.name))
        license_ = plan.request.license
        return PublishRequest(name=plan.name, replace=replaces, license=license_, order=0, progress=self.progress)

    # -- the store

    async def arrived(self, content: bytes, path: str = "m.gguf") -> ReadyFile:
        """A file of these bytes that is in the store."""
        await self.store.add(self.file("blob", content), name=f"blob-{digest_of(content).hex[:8]}")
        blob = await self.store.ingest.find(digest_of(content), self.held, FileProgress())
        assert blob is not None
        return ReadyFile(path=path, content=blob)

    async def published(self, plan: Plan, arrived: Sequence[ReadyFile], meaning: Meaning) -> None:
        """The model of an earlier pull."""
        publication = plan.publication(self.publish_request(plan), arrived, meaning, asked=True)
        alone = len(arrived) == 1
        await self.store.ingest.publish(
            publication.request, arrived, publication.source, Requester(peer=1), alone=alone, provenance=None
        )

    def staging(self, content: bytes, *, as_described: bool) -> Staging:
        path = self.file(f"fetched-{digest_of(content).hex[:8]}", content)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            staged = stage_copy(self.layout, descriptor, path, space=self.store.ingest.space, progress=FileProgress())
        finally:
            os.close(descriptor)
        of_copy = {field.name: getattr(staged, field.name) for field in fields(staged)}
        return Staging(**of_copy, served={"hub": len(content)}, as_described=as_described)

    # -- fetching

    def fetcher(self, plan: Plan, files: Sequence[FileInfo], *, revision: str | None = None) -> FileFetcher:
        description = Description(source="hub", files=tuple(files), registry="hub", revision=revision)
        described = cast("Described[Any]", _Answered(description))
        return FileFetcher(self.context, plan, described, files, self.progress, unheard, self.held)


@dataclass
class _Answered:
    description: Description
