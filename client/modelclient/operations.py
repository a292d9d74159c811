"""What can be asked of the daemon: each operation once, as one typed method that both clients have (see `methods`).

A new operation is one method here, beside its request and value in the wire.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Unpack

from modelclient.calls import Call
from modelclient.methods import answer, events, held, steps, work
from modelclient.new_models import NewModels, Submission
from modelwire import requests, values
from modelwire.vocabulary import CACHE_TYPE_DEFAULT, CacheType, JobState, OnDisconnect


class Operations(NewModels):
    # -- the daemon

    @answer
    def status(self) -> Call[values.Status]:
        return Call(requests.DaemonStatus(), values.Status)

    @answer
    def describe(self) -> Call[values.Description]:
        return Call(requests.DaemonDescribe(), values.Description)

    @answer
    def drain(self, deadline_s: float | None = None) -> Call[values.Drained]:
        return Call(requests.DaemonDrain(deadline_s=deadline_s), values.Drained)

    @answer
    def configure(
        self,
        *,
        max_rate: int | None = None,
        running_bytes: int | None = None,
        running_fetches: int | None = None,
        waiting_per_peer: int | None = None,
        waiting_total: int | None = None,
    ) -> Call[values.Configured]:
        """Changes settings of the running daemon, until it stops. `max_rate` is over all downloads, 0 for no limit."""
        request = requests.DaemonConfigure(
            max_rate=max_rate,
            running_bytes=running_bytes,
            running_fetches=running_fetches,
            waiting_per_peer=waiting_per_peer,
            waiting_total=waiting_total,
        )
        return Call(request, values.Configured)

    # -- models

    @steps
    def list_models(
        self,
        *,
        filter: str | None = None,  # noqa: A002 - the wire's word
        sort: str | None = None,
        fits: bool = False,
    ) -> Generator[Call[values.ModelList], values.ModelList, values.ModelList]:
        """All models, or those that a filter (`size>1GB,name~^llama`) lets through, and with `fits` only those that the
        machine has what it takes for: the daemon's pages, together."""
        models: list[values.ModelView] = []
        damaged: list[str] = []
        after: str | None = None
        while True:
            page = yield Call(requests.ModelList(after=after, filter=filter, sort=sort, fits=fits), values.ModelList)
            models += page.models
            damaged += page.damaged
            after = page.next
            if after is None:
                return values.ModelList(models=tuple(models), damaged=tuple(damaged))

    @answer
    def show(
        self,
        name: str,
        *,
        keys: tuple[str, ...] = (),
        tensors: bool = False,
        provenance: bool = False,
        context: int | None = None,
        cache_type: CacheType = CACHE_TYPE_DEFAULT,
    ) -> Call[values.ModelView]:
        """`keys` are those of the header whose values are wanted, or patterns with `*`. With `provenance` the history
        has up to 10,000 outcomes instead of the newest 100. The estimate of the video memory is for a `context` of so
        many tokens."""
        request = requests.ModelShow(
            name=name, keys=keys, tensors=tensors, provenance=provenance, context=context, cache_type=cache_type
        )
        return Call(request, values.ModelView)

    @answer
    def fit(self, name: str, *, vram_mb: int | None = None, ram_mb: int | None = None) -> Call[values.FitView]:
        """Whether the daemon's machine has what a model needs. Look at `fits`: a model that does not is no error.
        `vram_mb` and `ram_mb` are assumed instead of what the machine has."""
        return Call(requests.ModelFit(name=name, vram_mb=vram_mb, ram_mb=ram_mb), values.FitView)

    @answer
    def resolve(self, name: str, file: str | None = None) -> Call[values.Resolved]:
        """The path of a model's verified bytes, or of one of its files; look at `state` before trusting it."""
        return Call(requests.ModelResolve(name=name, file=file), values.Resolved)

    @held
    def lease(self, name: str, *, purpose: str = "") -> Call[values.Leased]:
        """A context manager: within it the model stays where it is, and `show` names this program as its holder.

        The lease ends with the block, or with the connection: when the process dies, and when the daemon stops.
        """
        return Call(requests.LeaseAcquire(name=name, purpose=purpose), values.Leased)

    @answer
    def acquire(self, name: str, *, ttl_s: float, purpose: str = "") -> Call[values.Leased]:
        """A detached lease: it outlives this connection and the daemon, until its time is over or `release` ends it."""
        request = requests.LeaseAcquire(name=name, purpose=purpose, detached=True, ttl_s=ttl_s)
        return Call(request, values.Leased)

    @answer
    def release(self, lease: str) -> Call[values.Released]:
        """Ends a lease; those of other users only for an admin."""
        return Call(requests.LeaseRelease(lease=lease), values.Released)

    @work
    def copy(
        self,
        source: str,
        destination: str,
        *,
        dry_run: bool = False,
        link: bool = False,
        **options: Unpack[Submission],
    ) -> Call[values.Copied]:
        """Gives the same bytes a second name; with `dry_run` returns the plan only. A model of a site is copied into
        the store; with `link` its files get a second name there instead."""
        request = requests.ModelCopy(source=source, destination=destination, dry_run=dry_run, link=link, **options)
        return Call(request, values.Copied)

    @work
    def move(self, source: str, destination: str, **options: Unpack[Submission]) -> Call[values.Moved]:
        """Renames a model; at every moment one of the two names resolves."""
        return Call(requests.ModelMove(source=source, destination=destination, **options), values.Moved)

    @work
    def remove(
        self, name: str, *, force: bool = False, now: bool = False, **options: Unpack[Submission]
    ) -> Call[values.Removed]:
        """Removes the name. The bytes stay until a sweep finds that nothing holds them; with `now` they go at once."""
        return Call(requests.ModelRemove(name=name, force=force, now=now, **options), values.Removed)

    @work
    def pin(self, name: str, **options: Unpack[Submission]) -> Call[values.Pinned]:
        """Keeps a model for good: it is removed only by force, and never to make room."""
        return Call(requests.ModelPin(name=name, **options), values.Pinned)

    @work
    def unpin(self, name: str, **options: Unpack[Submission]) -> Call[values.Pinned]:
        return Call(requests.ModelUnpin(name=name, **options), values.Pinned)

    @work
    def verify(self, *names: str, quick: bool = False, **options: Unpack[Submission]) -> Call[values.Verification]:
        """Hashes the bytes of these models, without names those of all. Look at `ok`: a bad model is no error.

        `quick` compares them with the checksums of their blocks instead, at the speed of the disk: that shows whether a
        bit has rotted, not who wrote the bytes.
        """
        return Call(requests.ModelVerify(names=names, all=not names, quick=quick, **options), values.Verification)

    @work
    def verify_signature(
        self,
        name: str,
        signature: str,
        *,
        key: str | None = None,
        roots: str | None = None,
        **options: Unpack[Submission],
    ) -> Call[values.SignatureVerified]:
        """Verifies that a trusted signer signed the files of a model; raises DigestMismatch when that is not so, and
        Unsupported when nothing can be known.

        `signature` is the content of the signature's file. Trusted are the holder of a public `key`, or those whose
        certificates lead to one of the `roots`: give the content of one of the two files, in PEM.
        """
        request = requests.ModelVerifySignature(name=name, signature=signature, key=key, roots=roots, **options)
        return Call(request, values.SignatureVerified)

    @work
    def repair(self, *names: str, from_path: str | None = None, **options: Unpack[Submission]) -> Call[values.Repaired]:
        """Brings back what is damaged or missing of these models, without names of all: only the damaged blocks are
        fetched, from where the models were pulled from.

        `from_path` is an absolute path of a file or directory that has the same bytes: its blocks are taken first.
        """
        request = requests.ModelRepair(names=names, all=not names, from_=from_path, **options)
        return Call(request, values.Repaired, path=from_path)

    # -- the store

    @answer
    def usage(self, *, plan_bytes: int | None = None) -> Call[values.Usage]:
        """With `plan_bytes` its `plan` says what would have to go to make room for so many bytes."""
        return Call(requests.StoreUsage(plan_bytes=plan_bytes), values.Usage)

    @answer
    def quarantine(self) -> Call[values.QuarantineList]:
        """Bad bytes that are kept, the newest first."""
        return Call(requests.StoreQuarantine(), values.QuarantineList)

    @work
    def sweep(
        self,
        *,
        dry_run: bool = False,
        grace: float | None = None,
        partials: bool = False,
        quarantine: bool = False,
        **options: Unpack[Submission],
    ) -> Call[values.Swept]:
        """Removes what nothing has held for `grace` seconds (default: the store's own period); with `dry_run` only
        reports what that is. `partials` also takes recent downloads that no open job needs; `quarantine` takes what is
        in quarantine, and nothing else."""
        request = requests.StoreSweep(
            dry_run=dry_run, grace_s=grace, partials=partials, quarantine=quarantine, **options
        )
        return Call(request, values.Swept)

    @work
    def scrub(self, *, full: bool = False, due: bool = False, **options: Unpack[Submission]) -> Call[values.Scrubbed]:
        """Reads all blobs again, beside all other work and at the configured rate: by the checksums of their blocks,
        and every so many times, or with `full`, by their hash. `due` looks only at those whose time has come."""
        return Call(requests.StoreScrub(full=full, due=due, **options), values.Scrubbed)

    @work
    def move_store(
        self, path: str | None = None, *, drop_old: bool = False, **options: Unpack[Submission]
    ) -> Call[values.Relocated]:
        """Moves the whole store to the directory at this absolute path, while its models are served. `drop_old` removes
        the directory that it was in before the last move."""
        return Call(requests.StoreMove(path=path, drop_old=drop_old, **options), values.Relocated)

    # -- jobs

    @steps
    def jobs(
        self, *, state: JobState | None = None, limit: int = requests.JOBS_LISTED
    ) -> Generator[Call[values.JobList], values.JobList, tuple[values.JobView, ...]]:
        """The newest first."""
        listed = yield Call(requests.JobList(state=state, limit=limit), values.JobList)
        return listed.jobs

    @answer
    def job(self, job: str) -> Call[values.JobView]:
        return Call(requests.JobShow(job=job), values.JobView)

    @work
    def attach(self, job: str) -> Call[values.JobView]:
        """Progress and outcome of a job, whichever client submitted it."""
        return Call(requests.JobAttach(job=job), values.JobView)

    @answer
    def cancel_job(self, job: str, *, discard: bool = False) -> Call[values.JobView]:
        """Ends a job. What has arrived is kept for the next time; `discard` removes it."""
        return Call(requests.JobCancel(job=job, discard=discard), values.JobView)

    @answer
    def pause(self, job: str) -> Call[values.JobView]:
        return Call(requests.JobPause(job=job), values.JobView)

    @answer
    def resume(self, job: str) -> Call[values.JobView]:
        return Call(requests.JobResume(job=job), values.JobView)

    @answer
    def prioritize(self, job: str, priority: int) -> Call[values.JobView]:
        return Call(requests.JobPrioritize(job=job, priority=priority), values.JobView)

    @answer
    def configure_job(
        self,
        job: str,
        *,
        priority: int | None = None,
        max_rate: int | None = None,
        on_disconnect: OnDisconnect | None = None,
    ) -> Call[values.Configured]:
        """Changes settings of one job, also while it runs: `max_rate` of a pull, 0 for no limit of its own."""
        request = requests.JobConfigure(job=job, priority=priority, max_rate=max_rate, on_disconnect=on_disconnect)
        return Call(request, values.Configured)

    # -- events

    @events
    def subscribe(
        self,
        *,
        since: int | None = None,
        last: int | None = None,
        follow: bool = True,
        progress: bool = False,
        events: tuple[str, ...] = (),
        model: str | None = None,
        job: str | None = None,
    ) -> Call[values.EventsEnd]:
        """Events of the log after `since` (or the newest `last`), then live ones while `follow`."""
        request = requests.EventsSubscribe(
            since=since, last=last, follow=follow, progress=progress, events=events, model=model, job=job
        )
        return Call(request, values.EventsEnd)
