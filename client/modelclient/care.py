"""What the blocking client asks of models and of the store beyond adding and looking: names, verification, space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelclient.exchange import Work
from modelclient.reading import WORK_ITEMS
from modelwire import requests, values
from modelwire.vocabulary import PRIORITY_DEFAULT, OnDisconnect

if TYPE_CHECKING:
    from modelclient.blocking import Client


class Care:
    """Part of `Client`."""

    def list_models(
        self: Client,
        *,
        filter: str | None = None,
        sort: str | None = None,
    ) -> values.ModelList:
        """All models, or those that a filter (`size>1GB,name~^llama`) lets through: the daemon's pages, together."""
        models: list[values.ModelView] = []
        damaged: list[str] = []
        after: str | None = None
        while True:
            page = self.call(requests.ModelList(after=after, filter=filter, sort=sort), values.ModelList)
            models += page.models
            damaged += page.damaged
            after = page.next
            if after is None:
                return values.ModelList(models=tuple(models), damaged=tuple(damaged))

    def copy(
        self: Client,
        source: str,
        destination: str,
        *,
        dry_run: bool = False,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Work[values.Copied]:
        """A second name for the same bytes; with `dry_run` only the plan."""
        request = requests.ModelCopy(
            source=source,
            destination=destination,
            dry_run=dry_run,
            priority=priority,
            on_disconnect=on_disconnect,
            token=token,
        )
        return Work(self, request, WORK_ITEMS, values.Copied)

    def move(
        self: Client,
        source: str,
        destination: str,
        *,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Work[values.Moved]:
        """Another name instead of the present one; at every moment one of the two resolves."""
        request = requests.ModelMove(
            source=source, destination=destination, priority=priority, on_disconnect=on_disconnect, token=token
        )
        return Work(self, request, WORK_ITEMS, values.Moved)

    def remove(
        self: Client,
        name: str,
        *,
        force: bool = False,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Work[values.Removed]:
        """Takes the name away. The bytes stay until a sweep finds that nothing holds them."""
        request = requests.ModelRemove(
            name=name, force=force, priority=priority, on_disconnect=on_disconnect, token=token
        )
        return Work(self, request, WORK_ITEMS, values.Removed)

    def verify(
        self: Client,
        *names: str,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Work[values.Verification]:
        """Hashes the bytes of these models, without names those of all. Look at `ok`: a bad model is no error."""
        request = requests.ModelVerify(
            names=names, all=not names, priority=priority, on_disconnect=on_disconnect, token=token
        )
        return Work(self, request, WORK_ITEMS, values.Verification)

    def quarantine(self: Client) -> values.QuarantineList:
        """Bad bytes that are kept, the newest first."""
        return self.call(requests.StoreQuarantine(), values.QuarantineList)

    def usage(self: Client) -> values.Usage:
        return self.call(requests.StoreUsage(), values.Usage)

    def sweep(
        self: Client,
        *,
        dry_run: bool = False,
        priority: int = PRIORITY_DEFAULT,
        on_disconnect: OnDisconnect = "cancel",
        token: str | None = None,
    ) -> Work[values.Swept]:
        """Takes back what nothing holds; with `dry_run` only tells what that is."""
        request = requests.StoreSweep(dry_run=dry_run, priority=priority, on_disconnect=on_disconnect, token=token)
        return Work(self, request, WORK_ITEMS, values.Swept)
