"""The steps of every change of a name, from a publication to a removal: the names' locks, then the publisher's turn,
then one step on the disk between two notes to the requesting job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import anyio
import anyio.to_thread

from modeld.store.catalog.history import Requester
from modeld.store.catalog.unnamed import Unnamed
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.manifests import writing
from modeld.store.manifests.index import Index
from modeld.store.manifests.registrations import Registrations
from modeld.store.names import ModelName
from modeld.store.publish.name_locks import NameLocks, Stop, alone, never
from modeld.store.publish.publisher import Publisher

T = TypeVar("T")
Value = TypeVar("Value", contravariant=True)


class Notes(Protocol[Value]):
    """The last two are called in the publisher's turn. An error of `about_to_publish` prevents the change."""

    def waits_for(self, holder: str, /) -> AbstractAsyncContextManager[None]:
        """Around the wait for a name's lock, which another program has."""

    async def about_to_publish(self, value: Value, /) -> None: ...

    async def published(self, value: Value, /) -> None: ...


class PassedOn:
    """Notes that add something to other notes: these learn of the waits."""

    def __init__(self, notes: Notes[Any]) -> None:
        self._notes = notes

    def waits_for(self, holder: str, /) -> AbstractAsyncContextManager[None]:
        return self._notes.waits_for(holder)


class Terms(TypedDict, Generic[T], total=False):
    """The options of a change: who requests it, its job's place of admission, its job's notes, and its stop."""

    requester: Requester
    order: int
    notes: Notes[T] | None
    stopped: Stop


@asynccontextmanager
async def announced(notes: Notes[Value] | None, value: Value) -> AsyncIterator[None]:
    """Around the step that makes a change visible: after a crash in between the job knows which change it had begun."""
    if notes is not None:
        await notes.about_to_publish(value)
    yield
    # ---- The change is visible: from here on nothing is undone. ----
    if notes is not None:
        await notes.published(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameChanges:
    """The parts of the store that a change of a name needs. For the event loop."""

    layout: Layout
    index: Index
    publisher: Publisher
    locks: NameLocks
    threads: anyio.CapacityLimiter
    registrations: Registrations
    unnamed: Unnamed = field(default_factory=lambda: Unnamed(None))

    @asynccontextmanager
    async def turn(
        self, order: int, *names: ModelName, stopped: Stop = never, notes: Notes[Any] | None = None
    ) -> AsyncIterator[None]:
        """Takes the locks first: a lock that another tool holds delays this name, not every publication. Two changes of
        the same names take them in the same order."""
        on_wait = alone if notes is None else notes.waits_for
        async with AsyncExitStack() as stack:
            for name in sorted(names, key=lambda name: name.key):
                await stack.enter_async_context(self.locks.held(name, stopped=stopped, on_wait=on_wait))
            await stack.enter_async_context(self.publisher.turn(order))
            yield

    # -- steps, each within the turn

    async def write(self, name: ModelName, document: Mapping[str, Any], *, replace: bool = False) -> None:
        """Writes the manifest, the last write: then the model exists."""
        write = partial(writing.write, self.layout, name, document, replace=replace)
        lost = await self._blobs_of(name) - writing.named_in(document) if replace else ()
        async with self.unnamed.losing(lost):
            await self.in_thread(partial(_changing, self.index, name, write))

    async def withdraw(self, name: ModelName) -> None:
        async with self.unnamed.losing(await self._blobs_of(name)):
            await self.in_thread(partial(_changing, self.index, name, partial(_remove_manifest, self.layout, name)))

    async def _blobs_of(self, name: ModelName) -> set[Digest]:
        entry = await self.in_thread(partial(self.index.entry, name))
        return set() if entry is None or entry.manifest is None else set(entry.manifest.blobs())

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self.threads)


def _changing(index: Index, name: ModelName, change: Callable[[], object]) -> None:
    with index.changing(name):
        change()


def _remove_manifest(layout: Layout, name: ModelName) -> None:
    path = layout.manifest(name)
    with durable.store_faults("remove the manifest", path):
        durable.remove(path)
    writing.sync_names(layout)
