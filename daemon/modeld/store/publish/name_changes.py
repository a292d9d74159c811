"""What every change of a name takes: the names' locks and the publisher's turn, one step on the disk, and a memory for
changes of which nobody knows whether they will last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar, cast

import anyio
import anyio.to_thread

from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import name_lock
from modeld.store.manifests import manifests
from modeld.store.names import ModelName
from modeld.store.publish.publishing import Counter
from modeld.store.publish.records import Records
from modelwire.errors import WireError
from modelwire.values import Copied, Moved, Removed

T = TypeVar("T")
Change = TypeVar("Change", Copied, Moved, Removed)

Stop = Callable[[], bool]
"""Whether nobody wants it any more; looked at while another tool's lock is waited for. Then `Stopped` is raised."""

_REMEMBERED: Final = 256
"""Requests whose outcome is unknown: each takes a failing disk, and is forgotten when it succeeds."""


def never() -> bool:
    return False


class NameChanges:
    """For the event loop."""

    def __init__(self, counter: Counter, records: Records) -> None:
        self._counter = counter
        self._index = counter.index
        self._layout = counter.layout
        self._records = records
        self._unsettled: dict[tuple[str, ...], Copied | Moved | Removed] = {}
        """By request: what was done, but may not last."""

    @asynccontextmanager
    async def turn(self, order: int, stopped: Stop, *names: ModelName) -> AsyncIterator[None]:
        """The names' locks in one order for everybody, then the turn."""
        counter = self._counter
        async with AsyncExitStack() as stack:
            for name in sorted(names, key=lambda name: name.key):
                await stack.enter_async_context(
                    name_lock(self._layout, name, counter.lock_seconds, counter.threads, stopped=stopped)
                )
            await stack.enter_async_context(counter.publisher.turn(order))
            yield

    # -- steps, each within the turn

    async def publish(self, name: ModelName, document: dict[str, Any]) -> None:
        with self._index.changing(name):
            await self._blocking(partial(manifests.write, self._layout, name, document, replace=False))

    async def withdraw(self, name: ModelName) -> None:
        with self._index.changing(name):
            await self._blocking(partial(_remove_manifest, self._layout, name))

    async def remove_trees(self, name: ModelName) -> None:
        """What showed the model's files under their names. What cannot be removed is left to a sweep."""
        with suppress(WireError, OSError):
            relinked = await self._blocking(partial(self._index.trees.remove, self._layout.trees_of(name)))
            await self._records.relinked(relinked)

    # -- outcomes that are unknown

    def unsettled(self, key: tuple[str, ...]) -> Copied | Moved | Removed | None:
        return self._unsettled.get(key)

    @contextmanager
    def remembering(self, key: tuple[str, ...], value: Change, done: Callable[[Change], bool]) -> Iterator[None]:
        """Around a change: a failure after it leaves a note for the next who asks for the same."""
        try:
            yield
        except WireError:
            if done(value):
                self._unsettled[key] = value
                while len(self._unsettled) > _REMEMBERED:
                    del self._unsettled[next(iter(self._unsettled))]
            raise
        self._unsettled.pop(key, None)

    async def made_lasting(self, key: tuple[str, ...], done: Callable[[Change], bool]) -> Change | None:
        """The value of the same request when it was carried out before and only its outcome was unknown."""
        value = cast("Change | None", self._unsettled.get(key))
        if value is None or not done(value):
            return None
        await self._blocking(partial(manifests.sync_names, self._layout))
        self._unsettled.pop(key, None)
        return value

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._counter.threads)


def _remove_manifest(layout: Layout, name: ModelName) -> None:
    path = layout.manifest(name)
    with durable.store_faults("remove the manifest", path):
        durable.remove(path)
    manifests.sync_names(layout)
