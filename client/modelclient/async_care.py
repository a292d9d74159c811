"""What the async client asks of models and of the store beyond adding and looking: names, verification, space;
and settings that change while things run."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from modelwire import requests, values
from modelwire.vocabulary import PRIORITY_DEFAULT, OnDisconnect

if TYPE_CHECKING:
    from modelclient.async_exchange import AsyncWork
    from modelwire.requests import Request

T = TypeVar("T", bound=values.Value)


class AsyncCare:
    """Part of `AsyncClient`, which sends and receives."""

    if TYPE_CHECKING:

        async def call(self, request: Request, value: type[T]) -> T: ...

        def work(self, request: Request, value: type[T]) -> AsyncWork[T]: ...

    async def list_models(
        self,
        *,
        filter: str | None = None,  # noqa: A002 - the wire's word
        sort: str | None = None,
    ) -> values.ModelList:
        """All models, or those that a filter (`size>1GB,name~^llama`) lets through: the daemon's pages, together."""
        models: list[values.ModelView] = []
        damaged: list[str] = []
        after: str | None = None
        while True:
            page = await self.call(requests.ModelList(after=after, filter=filter, sort=sort), values.ModelList)
            models += page.models
            damaged += page.damaged
            after = page.next
            if after is None:
                return values.ModelList(models=tuple(models), damaged=tuple(damaged))

    def copy(
        self,
        source: str,
        destination: str,
        *,
        dry_run: bool = False,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> AsyncWork[values.Copied]:
        """A second name for the same bytes; with `dry_run` only the plan."""
        request = requests.ModelCopy(
            source=source,
            destination=destination,
            dry_run=dry_run,
            priority=priority,
            on_disconnect=on_disconnect,
            token=token,
        )
        return self.work(request, values.Copied)

    def move(
        self,
        source: str,
        destination: str,
        *,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> AsyncWork[values.Moved]:
        """Another name instead of the present one; at every moment one of the two resolves."""
        request = requests.ModelMove(
            source=source, destination=destination, priority=priority, on_disconnect=on_disconnect, token=token
        )
        return self.work(request, values.Moved)

    def remove(
        self,
        name: str,
        *,
        force: bool = False,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> AsyncWork[values.Removed]:
        """Takes the name away. The bytes stay until a sweep finds that nothing holds them."""
        request = requests.ModelRemove(
            name=name, force=force, priority=priority, on_disconnect=on_disconnect, token=token
        )
        return self.work(request, values.Removed)

    def verify(
        self,
        *names: str,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> AsyncWork[values.Verification]:
        """Hashes the bytes of these models, without names those of all. Look at `ok`: a bad model is no error."""
        request = requests.ModelVerify(
            names=names, all=not names, priority=priority, on_disconnect=on_disconnect, token=token
        )
        return self.work(request, values.Verification)

    async def quarantine(self) -> values.QuarantineList:
        """Bad bytes that are kept, the newest first."""
        return await self.call(requests.StoreQuarantine(), values.QuarantineList)

    async def usage(self) -> values.Usage:
        return await self.call(requests.StoreUsage(), values.Usage)

    def sweep(
        self,
        *,
        dry_run: bool = False,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> AsyncWork[values.Swept]:
        """Takes back what nothing holds; with `dry_run` only tells what that is."""
        request = requests.StoreSweep(dry_run=dry_run, priority=priority, on_disconnect=on_disconnect, token=token)
        return self.work(request, values.Swept)

    async def configure(
        self,
        *,
        max_rate: int | None = None,
        running_bytes: int | None = None,
        running_fetches: int | None = None,
        waiting_per_peer: int | None = None,
        waiting_total: int | None = None,
    ) -> values.Configured:
        """Settings of the running daemon, until it stops. `max_rate` is over all downloads, 0 for no limit."""
        request = requests.DaemonConfigure(
            max_rate=max_rate,
            running_bytes=running_bytes,
            running_fetches=running_fetches,
            waiting_per_peer=waiting_per_peer,
            waiting_total=waiting_total,
        )
        return await self.call(request, values.Configured)

    async def configure_job(
        self, job: str, *, priority: int | None = None, max_rate: int | None = None
    ) -> values.Configured:
        """Settings of one job, also while it runs: `max_rate` of a pull, 0 for no limit of its own."""
        request = requests.JobConfigure(job=job, priority=priority, max_rate=max_rate)
        return await self.call(request, values.Configured)
