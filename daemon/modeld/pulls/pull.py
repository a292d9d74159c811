"""One attempt at pulling from a network: what it means, what of it is here, the rest, and a name for the whole.

Nothing is undone when it ends early. Files that are complete are blobs by then, partials have their journals, and the
next attempt, of this job or of another, finds both.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from modeld.activity import Activity
from modeld.download.routes.router import Described
from modeld.jobs.job import Job
from modeld.pulls.context import PullContext
from modeld.pulls.events import PullEvents
from modeld.pulls.files import FileFetcher
from modeld.pulls.memory import Meaning, MeantFile
from modeld.pulls.outcome import PullNotes, pulled_from
from modeld.pulls.own_thread import OwnThread
from modeld.pulls.plan import Plan
from modeld.sources.reference import Reference
from modeld.store import Digest, Requester
from modeld.store.ingest.ingest import ReadyFile
from modeld.store.publish.name_changes import Notes
from modeld.store.publish.publishing import PublishRequest
from modelwire.errors import DigestMismatch
from modelwire.requests import ModelPull
from modelwire.values import Added, Pulled


class Pull:
    def __init__(
        self,
        context: PullContext,
        activity: Activity,
        job: Job[ModelPull, Pulled],
        reference: Reference,
        notes: Notes[Pulled],
    ) -> None:
        self._context = context
        self._ingest = context.store.ingest
        self._layout = context.store.layout
        self._job = job
        self._progress = job.progress
        self._plan = Plan(job.request, reference, self._ingest.publishing)
        self._notes = notes
        self._events = PullEvents(activity, job, self._layout.manifest(self._plan.name))

    async def run(self) -> Pulled:
        self._progress.phase("checking_local")
        plan, layout = self._plan, self._layout
        here = layout.manifest(plan.name) if plan.expected is None else layout.blob(plan.expected)
        self._events.record("phase.checking_local", path=here)
        self._progress.add_listener(self._events.look)
        try:
            with ExitStack() as held:
                pulled = await self._pull(held)
        except DigestMismatch as fault:
            self._events.mismatch(fault)
            raise
        finally:
            self._progress.remove_listener(self._events.look)
        self._events.record("phase.ready", path=pulled.path)
        return pulled

    async def _pull(self, held: ExitStack) -> Pulled:
        plan, remembered = self._plan, None
        publish_as = PublishRequest(
            name=plan.name,
            replace=plan.request.replace or plan.follows(self._ingest.publishing.index.entry(plan.name)),
            license=plan.request.license,
            order=self._job.order,
            progress=self._progress,
        )
        if not plan.reference.secrets:
            remembered = await self._context.memory.meaning(plan.followed)
        if plan.expected is not None and plan.reference.is_single:
            meaning = remembered or plan.written_meaning()
            found = await self._find([(plan.path_of_one(meaning), plan.expected, None)], held)
            if found is not None:
                return await self._publish(publish_as, found, meaning)
        if plan.request.offline or self._context.settings.transfer.offline:
            known = plan.offline_meaning(remembered)
            if known is not None:
                files = [(file.path, Digest(file.digest), file.role) for file in known.files]
                found = await self._find(files, held)
                if found is not None:
                    return await self._publish(publish_as, found, known)
            raise self._context.refuse_offline(plan.reference)
        return await self._fetch(publish_as, held)

    async def _find(self, files: Sequence[tuple[str, Digest, str | None]], held: ExitStack) -> list[ReadyFile] | None:
        """All of them, of the store; None when one is not here."""
        arrived: list[ReadyFile] = []
        for (path, digest, role), progress in zip(files, self._progress.files([None] * len(files)), strict=True):
            blob = await self._ingest.find(digest, held, progress)
            if blob is None:
                return None
            progress.total(blob.size)
            progress.advance(done=blob.size, reused=blob.size)
            progress.finished()
            arrived.append(ReadyFile(path=path, content=blob, role=role))
        return arrived

    async def _fetch(self, publish_as: PublishRequest, held: ExitStack) -> Pulled:
        described = await self._ask()
        description = described.description
        files = self._plan.choose(description.files)
        fetcher = FileFetcher(self._context, self._plan, described, files, self._progress, self._events.transfer, held)
        await fetcher.look()
        self._plan.refuse_early(publish_as, files, fetcher.digests)
        if len(files) == 1 and fetcher.digests[0] is not None:
            self._events.path = self._layout.partial(fetcher.digests[0])
        arrived = await self._paced(fetcher)
        meaning = Meaning(
            registry=description.registry,
            repo=description.repo or "",
            revision=description.revision or "",
            license=description.license,
            files=tuple(MeantFile(each.path, each.digest.hex, each.size, each.role) for each in arrived),
        )
        return await self._publish(publish_as, arrived, meaning, asked=True, served=fetcher.served)

    async def _paced(self, fetcher: FileFetcher) -> list[ReadyFile]:
        """A priority or rate that the job is given meanwhile counts at once."""
        job = self._job
        share = self._context.transfer.budget.share(priority=job.priority, rate=job.request.max_rate)

        def apply() -> None:
            share.set_priority(job.priority)
            share.set_rate(job.request.max_rate)

        with job.follows_settings(apply):
            return await fetcher.run(share)

    async def _ask(self) -> Described[Any]:
        """What the reference means now."""
        stopped, left = self._progress.stopped, threading.Event()
        ask = partial(
            self._context.transfer.ask,
            self._context.route(self._plan.reference),
            stopped=lambda: left.is_set() or stopped(),
            on_event=self._events.transfer,
        )
        thread = OwnThread(ask, name=f"ask for job {self._job.id}")
        thread.start()
        try:
            await thread.wait(stopped)
        finally:
            left.set()
        return thread.outcome.result()

    async def _publish(
        self,
        publish_as: PublishRequest,
        arrived: list[ReadyFile],
        meaning: Meaning,
        *,
        asked: bool = False,
        served: Mapping[str, int] | None = None,
    ) -> Pulled:
        plan = self._plan
        text = plan.reference.text
        publication = plan.publication(publish_as, arrived, meaning, asked=asked)

        def pulled(added: Added) -> Pulled:
            revision, current = meaning.revision or None, publication.current
            return pulled_from(added, text, revision=revision, current=current, served=served)

        publish_as = replace(publication.request, notes=PullNotes(self._notes, pulled))
        requester = Requester(peer=self._job.peer, job=self._job.id)
        provenance = None if publication.current and not any(each.new for each in arrived) else text
        alone = len(arrived) == 1
        added = await self._ingest.publish(
            publish_as, arrived, publication.source, requester, alone=alone, provenance=provenance
        )
        if asked and not plan.reference.secrets:
            # Not when a user's digest alone said what it is.
            await self._context.memory.meant(plan.followed, meaning)
        return pulled(added)
