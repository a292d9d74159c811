"""One attempt at pulling from a network: what it means, what of it is here, the rest, and a name for the whole.

Nothing is undone when it ends early. Files that are complete are blobs by then, partials have their journals, and the
next attempt, of this job or of another, finds both.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import msgspec

from modeld.activity import Activity
from modeld.jobs.job import Job
from modeld.jobs.publication import PublicationNotes
from modeld.pulls.events import Telling
from modeld.pulls.files import Fetch
from modeld.pulls.memory import Meaning, MeantFile
from modeld.pulls.outcome import PullNotes, pulled_from
from modeld.pulls.own_thread import in_own_thread
from modeld.pulls.selection import chosen
from modeld.pulls.shared import Workshop
from modeld.sources.reference import Reference
from modeld.store import Asker, Digest, ModelName
from modeld.store.ingest.downloaded import Arrived, files_of, first_of
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.manifests import File, Source
from modeld.store.parts import first_weights
from modeld.store.publish.publishing import Wish
from modelwire import requests
from modelwire.errors import DigestMismatch, InvalidRequest, WireError
from modelwire.values import Added, Pulled


class Pull:
    def __init__(
        self,
        workshop: Workshop,
        activity: Activity,
        job: Job[requests.ModelPull, Pulled],
        reference: Reference,
        notes: PublicationNotes[Pulled],
    ) -> None:
        request = job.request
        assert request.name is not None, "a request is given a name before it is admitted"
        self._workshop = workshop
        self._arrivals = workshop.store.arrivals
        self._notes = notes
        self._job = job
        self._request = request
        self._reference = reference
        self._expected = None if request.sha256 is None else Digest.parse(request.sha256)
        globs = [*(f"+{glob}" for glob in request.include), *(f"-{glob}" for glob in request.exclude)]
        self._followed = " ".join([reference.text, *globs])
        """What the name stands for from now on: the reference, and which of its files."""
        self._current = False
        self._asked = False
        self._meaning = Meaning()
        self._served: Counter[str] = Counter()
        self._name = ModelName.parse(request.name)
        self._progress = job.meter
        self._telling = Telling(activity, job, self._arrivals.layout.manifest(self._name))

    async def run(self) -> Pulled:
        self._progress.phase("checking_local")
        layout = self._arrivals.layout
        here = layout.manifest(self._name) if self._expected is None else layout.blob(self._expected)
        self._telling.event("phase.checking_local", path=here)
        self._progress.add_listener(self._telling.look)
        try:
            with ExitStack() as held:
                pulled = await self._pull(held)
        except DigestMismatch as fault:
            self._telling.mismatch(fault)
            raise
        finally:
            self._progress.remove_listener(self._telling.look)
        self._telling.event("phase.ready", path=pulled.path)
        return pulled

    async def _pull(self, held: ExitStack) -> Pulled:
        wish = self._wish(self._arrivals.standing(self._name))
        remembered = None if self._reference.secrets else await self._workshop.memory.meaning(self._followed)
        offline = self._request.offline or self._workshop.settings.transfer.offline
        if self._expected is not None and self._reference.is_single:
            found = await self._find(self._expected, held)
            if found is not None:
                self._meaning = remembered or self._written()
                return await self._publish(wish, [replace(found, path=self._path_of_one())])
        if offline:
            return await self._here(wish, remembered, held)
        return await self._fetch(wish, held)

    # -- what is here

    async def _find(self, digest: Digest, held: ExitStack) -> Arrived | None:
        (progress,) = self._progress.files([None])
        blob = await self._arrivals.find(digest, held, progress)
        if blob is None:
            return None
        progress.total(blob.size)
        progress.advance(done=blob.size, reused=blob.size)
        progress.finished()
        return Arrived(path="", blob=blob)

    def _written(self) -> Meaning:
        """What the spelling alone says of where it comes from, when nobody was asked."""
        registry, repo = self._reference.written_place
        return Meaning(registry=registry, repo=repo)

    def _path_of_one(self) -> str:
        known = self._meaning.files
        if len(known) == 1:
            return known[0].path
        return os.path.basename(self._reference.name_hint.rstrip("/")) or "model"

    async def _here(self, wish: Wish, remembered: Meaning | None, held: ExitStack) -> Pulled:
        """Without a network: what the reference meant when it was last asked, if all of that is here still."""
        remembered = remembered or self._recorded()
        if remembered is None or not remembered.files:
            raise self._workshop.refuse_offline(self._reference)
        if self._expected is not None and [self._expected.hex] != [file.digest for file in remembered.files]:
            raise self._workshop.refuse_offline(self._reference)
        self._meaning = remembered
        arrived: list[Arrived] = []
        progress = self._progress.files([file.size for file in remembered.files])
        for file, here in zip(remembered.files, progress, strict=True):
            blob = await self._arrivals.find(Digest(file.digest), held, here)
            if blob is None:
                raise self._workshop.refuse_offline(self._reference)
            here.advance(done=blob.size, reused=blob.size)
            here.finished()
            arrived.append(Arrived(path=file.path, blob=blob, role=file.role))
        return await self._publish(wish, arrived)

    def _recorded(self) -> Meaning | None:
        """The same from the manifest of a model that was pulled by this reference: the catalogue may be a new one."""
        standing = self._arrivals.standing(self._name)
        if standing is None or not self._follows(standing):
            return None
        manifest, source = standing.usable(), standing.usable().source or Source()
        alone = (File(path=source.filename or "model", blob=manifest.blob, size_bytes=manifest.size_bytes),)
        return Meaning(
            registry=source.registry or "",
            repo=source.repo or "",
            revision=source.revision or "",
            license=manifest.license,
            files=tuple(
                MeantFile(file.path, Digest.parse(file.blob).hex, file.size_bytes, file.role)
                for file in manifest.files or alone
            ),
        )

    # -- what is not

    async def _fetch(self, wish: Wish, held: ExitStack) -> Pulled:
        route = self._workshop.route(self._reference)
        left = threading.Event()
        ask = partial(
            self._workshop.transfer.ask,
            route,
            stopped=lambda: left.is_set() or self._progress.stopped(),
            on_event=self._telling.transfer,
        )
        try:
            described = await in_own_thread(ask, self._progress.stopped, name=f"ask for job {self._job.id}")
        finally:
            left.set()
        description = described.description
        files = chosen(description.files, self._reference, self._request.include, self._request.exclude)
        if self._expected is not None and len(files) != 1:
            raise InvalidRequest(
                f"$.sha256: {self._reference.text} is a model of {len(files)} files, and a digest is of one",
                hint="pull it without --sha256; `modelctl show` tells the digest of each file",
            )
        self._asked = True
        self._meaning = Meaning(
            registry=description.registry,
            repo=description.repo or "",
            revision=description.revision or "",
            license=description.license,
        )
        fetch = Fetch(
            self._workshop, self._reference, described, files, self._expected, self._progress, self._telling, held
        )
        await fetch.look()
        wanted = fetch.as_wanted()
        self._refuse_early(wish, wanted, [file.size for file in files])
        if wanted is not None and len(wanted) == 1:
            self._telling.path = self._arrivals.layout.partial(Digest.parse(wanted[0].blob))
        arrived = await self._paced(fetch)
        self._served = fetch.served
        return await self._publish(wish, arrived)

    async def _paced(self, fetch: Fetch) -> list[Arrived]:
        """A priority or rate that the job is given meanwhile counts at once."""
        job = self._job
        share = self._workshop.transfer.budget.share(priority=job.priority, rate=job.request.max_rate)

        def apply() -> None:
            share.set_priority(job.priority)
            share.set_rate(job.request.max_rate)

        with job.follows_settings(apply):
            return await fetch.run(share)

    def _refuse_early(self, wish: Wish, files: list[File] | None, sizes: list[int | None]) -> None:
        """A name that may not be given is refused before the first byte is fetched for it."""
        if files is None:
            known = [size for size in sizes if size is not None]
            self._arrivals.judge_unseen(wish, sum(known) if len(known) == len(sizes) else None)
            return
        if len(files) == 1:
            self._arrivals.judge(wish, Digest.parse(files[0].blob))
            return
        first = first_weights([(file.path, file.role or "", file.size_bytes) for file in files])
        self._arrivals.judge(wish, Digest.parse(files[first].blob), files)

    # -- the name

    def _wish(self, standing: Entry | None) -> Wish:
        """A name that was pulled by the same reference follows it: what it means now takes its place."""
        return Wish(
            name=self._name,
            replace=self._request.replace or self._follows(standing),
            license=self._request.license,
            order=self._job.order,
            observer=self._progress,
            notes=PullNotes(self._notes, self._pulled),
        )

    def _follows(self, standing: Entry | None) -> bool:
        if standing is None or standing.manifest is None or standing.name.text != self._name.text:
            return False
        try:
            source = standing.document().get("source")
        except (OSError, WireError):
            return False
        return isinstance(source, dict) and source.get("reference") == self._followed

    async def _publish(self, wish: Wish, arrived: list[Arrived]) -> Pulled:
        first = arrived[first_of(arrived)]
        files = files_of(arrived)
        standing = self._arrivals.standing(self._name)
        # Judged as if it were not to be replaced: the same bytes under the same name need no new manifest.
        same = standing is not None and self._same(wish, standing, first.blob.digest, files)
        self._current = same
        source = {
            "registry": self._meaning.registry,
            "repo": self._meaning.repo,
            "revision": self._meaning.revision,
            "filename": first.path,
            "reference": self._followed,
        }
        if standing is not None and same and self._moved(standing, source):
            # The same bytes under another revision: the manifest says which, and all else of it stays.
            wish = replace(wish, license=self._request.license or standing.usable().license, replace=True)
        elif same:
            wish = replace(wish, replace=False)
        else:
            wish = replace(wish, license=self._request.license or self._meaning.license)
        asker = Asker(peer=self._job.peer, job=self._job.id)
        told = None if same and not any(each.fetched for each in arrived) else self._reference.text
        added = await self._arrivals.publish(wish, arrived, source, asker, told)
        if self._asked and not self._reference.secrets:
            # Not when a user's digest alone said what it is.
            await self._workshop.memory.meant(self._followed, self._meant(arrived))
        return self._pulled(added)

    def _moved(self, standing: Entry, source: dict[str, str]) -> bool:
        """Whether the source that was asked just now says something else than the manifest of this reference."""
        if not self._asked or not self._follows(standing):
            return False
        recorded = standing.usable().source or Source()
        # Not the registry: a mirror that answers today has the same to give.
        return (recorded.repo, recorded.revision) != (source["repo"], source["revision"])

    def _same(self, wish: Wish, standing: Entry, digest: Digest, files: list[File]) -> bool:
        if standing.manifest is None or standing.name.text != self._name.text:
            return False
        try:
            return self._arrivals.judge(replace(wish, replace=False), digest, files)
        except WireError:
            return False

    def _meant(self, arrived: list[Arrived]) -> Meaning:
        files = tuple(MeantFile(each.path, each.blob.digest.hex, each.blob.size, each.role) for each in arrived)
        return msgspec.structs.replace(self._meaning, files=files)

    def _pulled(self, added: Added) -> Pulled:
        return pulled_from(
            added,
            self._reference.text,
            revision=self._meaning.revision or None,
            current=self._current,
            served=self._served,
        )
