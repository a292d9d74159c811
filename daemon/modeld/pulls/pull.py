"""One attempt at pulling from a network: what the reference stands for, which files are here, the rest, and a name.

An attempt that ends early undoes nothing. Its complete files are blobs by then and its partials have their journals;
the next attempt, of this job or of another, finds both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import msgspec

from modeld.activity import Activity
from modeld.download.cancel_scope import CancelScope
from modeld.download.routes.router import Described
from modeld.download.source import Description, FileInfo
from modeld.jobs.job import AnyJob
from modeld.pulls.context import PullContext
from modeld.pulls.events import PullEvents
from modeld.pulls.files import ModelFiles
from modeld.pulls.memory import RemoteFile, RemoteModel
from modeld.pulls.own_thread import in_own_thread
from modeld.pulls.plan import Plan
from modeld.pulls.signature import fetch_signature
from modeld.sources.kind import For
from modeld.sources.reference import Reference
from modeld.store import Requester
from modeld.store.ingest.ingest import ReadyFile, until_there
from modeld.store.ingest.trusted import SIGNATURE_FILE, Origin, check_early
from modeld.store.publish.name_changes import Notes, PassedOn
from modeld.store.publish.owners import refuses_name
from modeld.store.publish.publishing import Ensuring, PublishTerms
from modelwire.errors import AlreadyExists, PermissionDenied, WireError
from modelwire.limits import LICENSE
from modelwire.requests import ModelPull
from modelwire.values import Added, Pulled

Otherwise = Callable[[], Awaitable[tuple[ModelPull, Ensuring]]]
"""Returns the request under another name, and its terms."""


class PullNotes(PassedOn):
    """As the notes of a publication it passes on what the store announces as added, in the shape of a pull."""

    def __init__(self, notes: Notes[Pulled], make: Callable[..., Pulled]) -> None:
        """`make` has what only a pull reports, and takes the fields of what was added."""
        super().__init__(notes)
        self._make = make

    def pulled(self, added: Added) -> Pulled:
        return self._make(**msgspec.structs.asdict(added))

    async def about_to_publish(self, value: Added, /) -> None:
        await self._notes.about_to_publish(self.pulled(value))

    async def published(self, value: Added, /) -> None:
        await self._notes.published(self.pulled(value))


class Pull:
    def __init__(
        self,
        context: PullContext,
        activity: Activity,
        job: AnyJob,
        plan: Plan,
        notes: Notes[Pulled],
        *,
        user: For,
        otherwise: Otherwise | None = None,
        signature: bytes | None,
    ) -> None:
        self._context = context
        self._signature = signature
        self._in_thread = context.store.ingest.publishing.in_thread
        self._layout = context.store.layout
        self._job = job
        self._progress = job.progress
        self._plan = plan
        self._notes = notes
        self._user = user
        self._otherwise = otherwise
        self._events = PullEvents(activity, job, self._layout.manifest(self._plan.name))
        self._holds = ExitStack()
        self._name = AsyncExitStack()

    @classmethod
    async def planned(
        cls,
        context: PullContext,
        activity: Activity,
        job: AnyJob,
        request: ModelPull,
        reference: Reference,
        notes: Notes[Pulled],
        *,
        requester: Requester,
        user: For,
        otherwise: Otherwise | None = None,
        **terms: Unpack[PublishTerms],
    ) -> Pull:
        """With `otherwise`, a model that has its files and may not have its name takes that which is returned."""
        publishing = context.store.ingest.publishing
        plan = partial(
            Plan,
            request,
            reference,
            publishing,
            requester=requester,
            order=job.order,
            progress=job.progress,
            **terms,
        )
        return cls(
            context,
            activity,
            job,
            await publishing.in_thread(plan),
            notes,
            user=user,
            otherwise=otherwise,
            signature=None if request.signature is None else request.signature.encode(),
        )

    async def run(self) -> Pulled:
        plan, layout = self._plan, self._layout
        # What a secret authorises cannot go on after a restart, which forgets the secret.
        self._job.resumable = not plan.reference.secrets
        self._progress.phase("checking_local")
        path = layout.manifest(plan.name) if plan.expected is None else layout.blob(plan.expected)
        self._events.record("phase.checking_local", path=path)
        with self._progress.heard_by(self._events.on_progress):
            async with self._context.job_partials.followed(self._job.id, self._progress), self._name:
                with self._holds:
                    pulled = await until_there(self._pull)
        self._events.record("phase.ready", path=pulled.path)
        return pulled

    async def _pull(self) -> Pulled:
        plan, remembered = self._plan, None
        if not plan.reference.secrets:
            remembered = await self._context.memory.model(plan.full_reference)
        offline = plan.request.offline or self._context.settings.transfer.offline
        for model in await self._in_thread(partial(plan.models_to_find, remembered, offline=offline)):
            files = self._files(model.infos)
            # What is known without a source has no signature beside it: then the source is asked all the same.
            if await files.find() and (offline or not await self._in_thread(partial(self._lacks_signature, files))):
                return await self._publish(files.ready, model)
        if offline:
            raise self._context.offline_fault(plan.reference)
        return await self._fetch(await self._ask())

    def _lacks_signature(self, files: ModelFiles) -> bool:
        """Blocking. Whether a rule requires one that neither the request has brought nor the files have among them."""
        origin = self._plan.origin([file.path for file in files.infos], self._signature)
        known = origin.signature is not None or any(file.path == SIGNATURE_FILE for file in files.infos)
        return not known and self._context.store.ingest.rules.matching(origin.spellings) is not None

    async def _origin(self, files: ModelFiles, description: Description) -> Origin:
        """With the signature from beside the files, when one is required. Refuses before the first byte is fetched."""
        paths = [file.path for file in files.infos]
        if self._signature is None and await self._in_thread(partial(self._lacks_signature, files)):
            self._signature = await fetch_signature(
                self._context,
                self._plan.reference.pinned(description.revision or ""),
                self._user,
                stopped=self._progress.stopped,
                on_event=self._events.on_transfer_event,
                name=f"ask for the signature of job {self._job.id}",
            )
        origin = self._plan.origin(paths, self._signature, all_there=description.note is None)
        await self._in_thread(partial(check_early, self._context.store.ingest.rules, origin, paths))
        return origin

    def _files(self, files: Sequence[FileInfo], revision: str | None = None) -> ModelFiles:
        return ModelFiles(self._context, self._plan, files, revision, self._progress, self._holds)

    async def _ask(self) -> Described[Any]:
        """The source's description of what the reference stands for now."""
        stopped, scope = self._progress.stopped, CancelScope()

        def ask() -> Described[Any]:
            return self._context.transfer.router.describe(
                # A source that is made imports and reads what it needs.
                self._context.route(self._plan.reference, self._user),
                stopped=lambda: scope.cancelled or stopped(),
                on_event=self._events.on_transfer_event,
            )

        return await in_own_thread(ask, name=f"ask for job {self._job.id}", stopped=stopped, scope=scope)

    async def _fetch(self, described: Described[Any]) -> Pulled:
        job, description = self._job, described.description
        files = self._files(self._plan.choose(description.files), description.revision)
        here = await files.find()
        await self._in_thread(partial(self._plan.refuse_early, files.infos))
        origin = await self._origin(files, description)
        if not here:
            # To the end of the pull: another tool that writes this name waits meanwhile.
            locks, stopped = self._context.store.ingest.publishing.locks, self._progress.stopped
            held = locks.held(self._plan.name, stopped=stopped, on_wait=self._notes.waits_for)
            await self._name.enter_async_context(held)
            # Another tool that had the name may have published it, or the bytes.
            await files.find()
            await self._in_thread(self._plan.look_at_name)
            await self._in_thread(partial(self._plan.refuse_early, files.infos))
        if len(files.infos) == 1 and (digest := files.infos[0].digest) is not None:
            self._events.path = self._layout.partial(digest)
        job.resumable = job.resumable and files.resumable
        ready = await self._fetch_missing(files, described)
        license_ = description.license  # a source may give a whole text
        if not files.said:
            return await self._publish(ready, RemoteModel(said=False), origin, note=description.note)
        model = RemoteModel(
            registry=description.registry,
            repo=description.repo or "",
            revision=description.revision or "",
            license=license_ if license_ is None or len(license_) <= LICENSE else None,
            files=tuple(RemoteFile(file.path, file.digest.hex, file.role) for file in ready),
        )
        return await self._publish(ready, model, origin, asked=True, note=description.note)

    async def _fetch_missing(self, files: ModelFiles, described: Described[Any]) -> list[ReadyFile]:
        job = self._job
        share = self._context.transfer.budget.share(priority=job.priority, rate=job.request.max_rate)

        def apply_settings() -> None:
            share.set_priority(job.priority)
            share.set_rate(job.request.max_rate)
            job.progress.forget_rate()

        with job.follows_settings(apply_settings):
            return await files.fetch(described, self._events.on_transfer_event, share)

    async def _publish(
        self,
        files: list[ReadyFile],
        model: RemoteModel,
        origin: Origin | None = None,
        *,
        asked: bool = False,
        note: str | None = None,
    ) -> Pulled:
        """`asked` as in `Plan.publication`."""
        self._job.resumable = False
        plan = self._plan
        origin = origin or plan.origin([file.path for file in files], self._signature, said=model.said)
        pulled = await self._published(files, model, origin, asked=asked, note=note)
        if asked and not plan.reference.secrets:
            await self._context.memory.remember_model(plan.full_reference, model)
        return pulled

    async def _published(
        self, files: list[ReadyFile], model: RemoteModel, origin: Origin, *, asked: bool, note: str | None
    ) -> Pulled:
        plan, ingest = self._plan, self._context.store.ingest
        served = dict(sum((Counter(file.served) for file in files), Counter()))
        while True:
            request, current = await self._in_thread(partial(plan.publication, files, model, asked=asked))
            make = partial(Pulled, source=plan.reference.text, revision=model.revision or None, current=current)
            notes = PullNotes(self._notes, partial(make, note=note, served=served))
            request = replace(request, notes=notes)
            source = plan.source(files, model)
            try:
                added = await ingest.publish(request, files, source, origin=origin, alone=len(files) == 1)
            except (AlreadyExists, PermissionDenied) as fault:
                # The name stood for these bytes, and another request has replaced them since: decide anew.
                if not (current and isinstance(fault, AlreadyExists)) and not await self._takes_other_name(fault):
                    raise
            else:
                return notes.pulled(added)

    async def _takes_other_name(self, fault: WireError) -> bool:
        otherwise, self._otherwise = self._otherwise, None
        if otherwise is None or not refuses_name(fault, self._plan.name):
            return False
        await self._name.aclose()
        await self._in_thread(partial(self._plan.take_name, *await otherwise()))
        return True
