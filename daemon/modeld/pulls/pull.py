"""One attempt at pulling from a network: what the reference stands for, which files are here, the rest, and a name.

An attempt that ends early undoes nothing. Its complete files are blobs by then and its partials have their journals;
the next attempt, of this job or of another, finds both.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from modeld.activity import Activity
from modeld.download.routes.router import Described
from modeld.jobs.job import Job
from modeld.pulls.context import PullContext
from modeld.pulls.events import PullEvents
from modeld.pulls.files import FileFetcher, find_file
from modeld.pulls.memory import RemoteFile, RemoteModel
from modeld.pulls.outcome import PullOutcome
from modeld.pulls.own_thread import OwnThread
from modeld.pulls.plan import Plan
from modeld.sources.reference import Reference
from modeld.store import Digest, Requester
from modeld.store.ingest.ingest import ReadyFile
from modeld.store.publish.name_changes import Notes
from modelwire.errors import DigestMismatch
from modelwire.requests import ModelPull
from modelwire.values import Pulled


class Pull:
    def __init__(
        self,
        context: PullContext,
        activity: Activity,
        job: Job[ModelPull, Pulled],
        plan: Plan,
        notes: Notes[Pulled],
    ) -> None:
        self._context = context
        self._ingest = context.store.ingest
        self._in_thread = context.store.ingest.publishing.in_thread
        self._layout = context.store.layout
        self._job = job
        self._progress = job.progress
        self._plan = plan
        self._notes = notes
        self._events = PullEvents(activity, job, self._layout.manifest(self._plan.name))

    @classmethod
    async def planned(
        cls,
        context: PullContext,
        activity: Activity,
        job: Job[ModelPull, Pulled],
        reference: Reference,
        notes: Notes[Pulled],
    ) -> Pull:
        publishing = context.store.ingest.publishing
        plan = await publishing.in_thread(
            partial(Plan, job.request, reference, publishing, order=job.order, progress=job.progress)
        )
        return cls(context, activity, job, plan, notes)

    async def run(self) -> Pulled:
        plan, layout, on_progress = self._plan, self._layout, self._events.on_progress
        self._progress.phase("checking_local")
        path = layout.manifest(plan.name) if plan.expected is None else layout.blob(plan.expected)
        self._events.record("phase.checking_local", path=path)
        self._progress.add_listener(on_progress)
        try:
            with ExitStack() as holds:
                pulled = await self._pull(holds)
        except DigestMismatch as fault:
            self._events.record_mismatch(fault)
            raise
        finally:
            self._progress.remove_listener(on_progress)
        self._events.record("phase.ready", path=pulled.path)
        return pulled

    async def _pull(self, holds: ExitStack) -> Pulled:
        plan, remembered = self._plan, None
        if not plan.reference.secrets:
            remembered = await self._context.memory.model(plan.full_reference)
        offline = plan.request.offline or self._context.settings.transfer.offline
        models = await self._in_thread(partial(plan.models_to_find, remembered, offline=offline))
        for model in models:
            found = await self._find(model, holds)
            if found is not None:
                return await self._publish(found, model)
        if offline:
            raise self._context.offline_fault(plan.reference)
        return await self._fetch(holds)

    async def _find(self, model: RemoteModel, holds: ExitStack) -> list[ReadyFile] | None:
        """The files of the model; None when one is not in the store."""
        ready: list[ReadyFile] = []
        for file, progress in zip(model.files, self._progress.files([None] * len(model.files)), strict=True):
            found = await find_file(self._ingest, file.path, Digest(file.digest), file.role, holds, progress)
            if found is None:
                return None
            ready.append(found)
        return ready

    async def _fetch(self, holds: ExitStack) -> Pulled:
        described = await self._ask()
        description = described.description
        files = self._plan.choose(description.files)
        on_event = self._events.on_transfer_event
        fetcher = FileFetcher(self._context, self._plan, described, files, self._progress, on_event, holds)
        await fetcher.find()
        await self._in_thread(partial(self._plan.refuse_early, files, fetcher.digests))
        if len(files) == 1 and fetcher.digests[0] is not None:
            self._events.path = self._layout.partial(fetcher.digests[0])
        ready = await self._paced(fetcher)
        model = RemoteModel(
            registry=description.registry,
            repo=description.repo or "",
            revision=description.revision or "",
            license=description.license,
            files=tuple(RemoteFile(file.path, file.digest.hex, file.role) for file in ready),
        )
        return await self._publish(ready, model, asked=True)

    async def _paced(self, fetcher: FileFetcher) -> list[ReadyFile]:
        """A change of the job's priority or rate applies at once."""
        job = self._job
        share = self._context.transfer.budget.share(priority=job.priority, rate=job.request.max_rate)

        def apply() -> None:
            share.set_priority(job.priority)
            share.set_rate(job.request.max_rate)

        with job.follows_settings(apply):
            return await fetcher.fetch(share)

    async def _ask(self) -> Described[Any]:
        """The source's description of what the reference stands for now."""
        stopped, left = self._progress.stopped, threading.Event()

        def ask() -> Described[Any]:
            return self._context.transfer.ask(
                self._context.route(self._plan.reference),  # a source that is made imports and reads what it needs
                stopped=lambda: left.is_set() or stopped(),
                on_event=self._events.on_transfer_event,
            )

        thread = OwnThread(ask, name=f"ask for job {self._job.id}")
        thread.start()
        try:
            await thread.wait(stopped)
        finally:
            left.set()
        return thread.outcome.result()

    async def _publish(self, files: list[ReadyFile], model: RemoteModel, *, asked: bool = False) -> Pulled:
        """`asked` as in `Plan.publication`."""
        plan, text = self._plan, self._plan.reference.text
        publication = await self._in_thread(partial(plan.publication, files, model, asked=asked))
        served = Counter[str]()
        for file in files:
            served.update(file.served)
        outcome = PullOutcome(
            source=text,
            revision=model.revision or None,
            current=publication.current,
            served=served,
            notes=self._notes,
        )
        added = await self._ingest.publish(
            replace(publication.request, notes=outcome),
            files,
            publication.source,
            Requester(peer=self._job.peer, job=self._job.id),
            alone=len(files) == 1,
            provenance=None if publication.current and not any(file.new for file in files) else text,
        )
        if asked and not plan.reference.secrets:
            # Only what the source described: a digest in the request alone does not define the reference.
            await self._context.memory.remember_model(plan.full_reference, model)
        return outcome.pulled(added)
