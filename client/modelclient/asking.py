"""What can be asked of the daemon, for both clients: each operation once, as a request and its value's type.

`AsyncClient` and `Client` make their own methods of those of `Operations`: they cannot differ in what they ask, only in
how they wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from modelwire import requests, values
from modelwire.requests import Request
from modelwire.vocabulary import PRIORITY_DEFAULT, JobState, OnDisconnect

P = ParamSpec("P")
T = TypeVar("T", bound=values.Value)


class Ask(Generic[T]):
    """One request, and what its answer must be."""

    __slots__ = ("request", "value")

    def __init__(self, request: Request, value: type[T]) -> None:
        self.request = request
        self.value = value


Asks = Callable[Concatenate[Any, P], Ask[T]]
"""A method of `Operations`, whoever `self` is."""


class Operations:
    """The signatures are those of both clients. A write takes `priority` (1 first), `on_disconnect` and `token`."""

    def status(self) -> Ask[values.Status]:
        return Ask(requests.DaemonStatus(), values.Status)

    def describe(self) -> Ask[values.Description]:
        return Ask(requests.DaemonDescribe(), values.Description)

    def drain(self, deadline_s: float | None = None) -> Ask[values.Drained]:
        return Ask(requests.DaemonDrain(deadline_s=deadline_s), values.Drained)

    def add(
        self,
        path: str,
        *,
        name: str | None = None,
        sha256: str | None = None,
        replace: bool = False,
        license: str | None = None,  # noqa: A002 - the wire's word
        move: bool = False,
        link: bool = False,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Ask[values.Added]:
        """A local file, directory or set of shards into the store. Without a name the daemon makes one of the file's.

        `path` must be absolute. `move` takes the source away in the end, `link` shares its bytes with the store.
        """
        request = requests.ModelAdd(
            path=path,
            name=name,
            sha256=sha256,
            replace=replace,
            license=license,
            move=move,
            link=link,
            priority=priority,
            on_disconnect=on_disconnect,
            token=token,
        )
        return Ask(request, values.Added)

    def pull(
        self,
        ref: str,
        *,
        name: str | None = None,
        sha256: str | None = None,
        replace: bool = False,
        license: str | None = None,  # noqa: A002 - the wire's word
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        offline: bool = False,
        max_rate: int | None = None,
        directory: str | None = None,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Ask[values.Pulled]:
        """What a reference means into the store: `hf:org/repo/file`, `ollama:name`, `oci://…`, `https://…`, a path.

        A relative path starts at `directory`. When the work is cancelled, what has arrived is kept for the next time.
        """
        request = requests.ModelPull(
            ref=ref,
            name=name,
            sha256=sha256,
            replace=replace,
            license=license,
            include=include,
            exclude=exclude,
            offline=offline,
            max_rate=max_rate,
            directory=directory,
            priority=priority,
            on_disconnect=on_disconnect,
            token=token,
        )
        return Ask(request, values.Pulled)

    def show(self, name: str) -> Ask[values.ModelView]:
        return Ask(requests.ModelShow(name=name), values.ModelView)

    def resolve(self, name: str, file: str | None = None) -> Ask[values.Resolved]:
        """The path of a model's verified bytes, or of one of its files; look at `state` before trusting it."""
        return Ask(requests.ModelResolve(name=name, file=file), values.Resolved)

    def jobs(self, *, state: JobState | None = None, limit: int = 100) -> Ask[values.JobList]:
        """The newest first."""
        return Ask(requests.JobList(state=state, limit=limit), values.JobList)

    def job(self, job: str) -> Ask[values.JobView]:
        return Ask(requests.JobShow(job=job), values.JobView)

    def attach(self, job: str) -> Ask[values.JobView]:
        """Progress and outcome of a job that somebody has submitted."""
        return Ask(requests.JobAttach(job=job), values.JobView)

    def cancel_job(self, job: str) -> Ask[values.JobView]:
        return Ask(requests.JobCancel(job=job), values.JobView)

    def pause(self, job: str) -> Ask[values.JobView]:
        return Ask(requests.JobPause(job=job), values.JobView)

    def resume(self, job: str) -> Ask[values.JobView]:
        return Ask(requests.JobResume(job=job), values.JobView)

    def prioritize(self, job: str, priority: int) -> Ask[values.JobView]:
        return Ask(requests.JobPrioritize(job=job, priority=priority), values.JobView)

    def copy(
        self,
        source: str,
        destination: str,
        *,
        dry_run: bool = False,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Ask[values.Copied]:
        """A second name for the same bytes; with `dry_run` only the plan."""
        request = requests.ModelCopy(
            source=source,
            destination=destination,
            dry_run=dry_run,
            priority=priority,
            on_disconnect=on_disconnect,
            token=token,
        )
        return Ask(request, values.Copied)

    def move(
        self,
        source: str,
        destination: str,
        *,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Ask[values.Moved]:
        """Another name instead of the present one; at every moment one of the two resolves."""
        request = requests.ModelMove(
            source=source, destination=destination, priority=priority, on_disconnect=on_disconnect, token=token
        )
        return Ask(request, values.Moved)

    def remove(
        self,
        name: str,
        *,
        force: bool = False,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Ask[values.Removed]:
        """Takes the name away. The bytes stay until a sweep finds that nothing holds them."""
        request = requests.ModelRemove(
            name=name, force=force, priority=priority, on_disconnect=on_disconnect, token=token
        )
        return Ask(request, values.Removed)

    def verify(
        self,
        *names: str,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Ask[values.Verification]:
        """Hashes the bytes of these models, without names those of all. Look at `ok`: a bad model is no error."""
        request = requests.ModelVerify(
            names=names, all=not names, priority=priority, on_disconnect=on_disconnect, token=token
        )
        return Ask(request, values.Verification)

    def quarantine(self) -> Ask[values.QuarantineList]:
        """Bad bytes that are kept, the newest first."""
        return Ask(requests.StoreQuarantine(), values.QuarantineList)

    def usage(self) -> Ask[values.Usage]:
        return Ask(requests.StoreUsage(), values.Usage)

    def sweep(
        self,
        *,
        dry_run: bool = False,
        grace: float | None = None,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Ask[values.Swept]:
        """Takes back what nothing holds and `grace` seconds (the store's own period) left alone; with `dry_run` only
        tells what that is."""
        request = requests.StoreSweep(
            dry_run=dry_run, grace_s=grace, priority=priority, on_disconnect=on_disconnect, token=token
        )
        return Ask(request, values.Swept)

    def configure(
        self,
        *,
        max_rate: int | None = None,
        running_bytes: int | None = None,
        running_fetches: int | None = None,
        waiting_per_peer: int | None = None,
        waiting_total: int | None = None,
    ) -> Ask[values.Configured]:
        """Settings of the running daemon, until it stops. `max_rate` is over all downloads, 0 for no limit."""
        request = requests.DaemonConfigure(
            max_rate=max_rate,
            running_bytes=running_bytes,
            running_fetches=running_fetches,
            waiting_per_peer=waiting_per_peer,
            waiting_total=waiting_total,
        )
        return Ask(request, values.Configured)

    def configure_job(
        self, job: str, *, priority: int | None = None, max_rate: int | None = None
    ) -> Ask[values.Configured]:
        """Settings of one job, also while it runs: `max_rate` of a pull, 0 for no limit of its own."""
        request = requests.JobConfigure(job=job, priority=priority, max_rate=max_rate)
        return Ask(request, values.Configured)

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
    ) -> Ask[values.EventsEnd]:
        """Events of the log after `since` (or the newest `last`), then live ones while `follow`."""
        request = requests.EventsSubscribe(
            since=since, last=last, follow=follow, progress=progress, events=events, model=model, job=job
        )
        return Ask(request, values.EventsEnd)


class Pages:
    """The models of a list, over as many answers as it takes."""

    def __init__(self, filter: str | None, sort: str | None) -> None:  # noqa: A002 - the wire's word
        self._filter = filter
        self._sort = sort
        self._after: str | None = None
        self._models: list[values.ModelView] = []
        self._damaged: list[str] = []
        self.complete = False

    def next(self) -> Ask[values.ModelList]:
        request = requests.ModelList(after=self._after, filter=self._filter, sort=self._sort)
        return Ask(request, values.ModelList)

    def take(self, page: values.ModelList) -> None:
        self._models += page.models
        self._damaged += page.damaged
        self._after = page.next
        self.complete = page.next is None

    @property
    def whole(self) -> values.ModelList:
        return values.ModelList(models=tuple(self._models), damaged=tuple(self._damaged))
