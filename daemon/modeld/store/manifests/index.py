"""Resolves names for readers from the manifests on disk, which it caches as long as stat shows no change.

Other tools publish and remove manifests at any time. So each answer costs a stat of the manifest and one of each blob,
and little more. A stat may hang with its disk: all answers are found in threads, except those that are known to be
`current` without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from modeld.store.blobs.linked import Linked
from modeld.store.catalog.records import Records
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.disk.listing import Listing, settled, times_of
from modeld.store.manifests import manifests
from modeld.store.manifests.current import Current, Placed
from modeld.store.manifests.entries import AtSite, Entry, NamedBlob, Why, WouldBlock, shown_as, unknown
from modeld.store.manifests.marks import Marks
from modeld.store.manifests.states import READY, Answer
from modeld.store.manifests.trees import Trees
from modeld.store.names import ModelName
from modelwire.errors import InvalidName, NotFound, WireError
from modelwire.values import ModelList, ModelView, Resolved

T = TypeVar("T")

LOOKING_THREADS: Final = 8
"""A disk that hangs holds a thread for each look, also for one whose client has left. When it holds all of them, later
looks wait for it too."""

_AT_ONCE: Final = 200
"""Models of one visit to a thread: some milliseconds, and a fraction of one for the event loop to go through them."""


_DOCUMENTS: Final = 10_000
"""Models whose documents are kept, in some 10 MB; of more models a list reads them from their files again."""

_LONGEST_DOCUMENT: Final = 4096
"""Bytes of a document that is kept. One that modeld makes has some 700."""


@dataclass(frozen=True, slots=True)
class Found:
    """An answer to a request for a path."""

    resolved: Resolved
    placed: Placed | None
    """The watches that were placed before the look; None when the model is not watched."""


class Index:
    """The manifests of one store. All methods block, and may be called from any thread, except where they say that they
    are for the event loop."""

    def __init__(
        self,
        layout: Layout,
        why: Why = unknown,
        trees: Trees | None = None,
        records: Records | None = None,
        *,
        check_root: Callable[[], None] = lambda: None,
        site: str | None = None,
    ) -> None:
        """`check_root` raises when another store is at the root's path: each manifest that is read anew asks it. `site`
        is the root when it is a site's."""
        self._layout = layout
        self.trees = trees or Trees(layout, Linked(layout))
        self._why = why
        self._records = records or Records(None)
        self._entries: dict[str, Entry] = {}
        """By the name's exact spelling."""
        self._forgotten = 0
        """How often all entries were dropped: one that was read before is not kept after."""
        self._check_root = check_root
        self._listing = Listing(layout, check_root=check_root)
        self.current = Current(layout, watched=site is None)
        self._threads = ThreadPoolExecutor(LOOKING_THREADS, "look")
        self.marks = Marks(layout)
        self._site = site
        self.site_of: Callable[[ModelName], str | None] = lambda _: None
        """The root of the site that is known to have a model of this name. Never waits."""
        self.changed: Callable[[str], None] = lambda _: None
        """Called with the name after this daemon has changed a manifest, in any thread. Never waits."""

    # -- answers

    async def in_thread(self, look: Callable[[], T]) -> T:
        """For the event loop: a look in a thread, which a caller that is cancelled leaves alone."""
        return await asyncio.wrap_future(self.submit(look))

    def submit(self, look: Callable[[], T]) -> Future[T]:
        """As `in_thread`, for a caller that may leave. Never waits."""
        return self._threads.submit(look)

    async def look_up(self, text: str, file: str | None = None) -> Resolved:
        """As `resolve`. For the event loop; afterwards `current` may know the answer."""
        seen = self.current.seen()
        looking = self._threads.submit(self._find_watched, text, file)
        try:
            found = await asyncio.wrap_future(looking)
        except asyncio.CancelledError:
            looking.add_done_callback(self._abandon)
            raise
        if found.placed is not None:
            self.current.admit(found.placed, found.resolved, seen)
        return found.resolved

    def _find_watched(self, text: str, file: str | None) -> Found:
        entry = self._entries.get(text)
        placed = None
        if file is None and entry is not None and entry.settled and entry.plain:
            placed = self.current.place(entry.name, entry.blobs[0].path)
        try:
            resolved = self.resolve(text, file)
        except BaseException:
            self.current.leave(placed)
            raise
        if self._entries.get(text) is entry:
            return Found(resolved, placed)
        self.current.leave(placed)  # the present entry may have another blob, which is not watched
        return Found(resolved, None)

    def _abandon(self, looking: Future[Found]) -> None:
        if not looking.cancelled() and looking.exception() is None:
            self.current.leave(looking.result().placed)

    def resolve(self, text: str, file: str | None = None) -> Resolved:
        """The path behind a name, or that of one of its files. `NotFound`, `InvalidName`, or `Corrupt` when bytes are
        missing; `WouldBlock` when stats cannot decide.
        """
        entry = self.find(text)
        look = entry.look()
        resolved = entry.checked(look)
        if look.state.answer is Answer.VERIFY or not entry.is_shown():
            raise WouldBlock(entry)
        return resolved if file is None else entry.resolved_file(file)

    def find(self, text: str) -> Entry:
        """The entry for a name: the name itself, else another spelling of it, else the name with the default tag."""
        name = ModelName.parse(text)
        for candidate in (name, name.with_default_tag):
            if candidate is not None:
                entry = self.entry(candidate)
                if entry is not None:
                    return entry
        self._listing.check_there()
        if (site := self.site_of(name)) is not None:
            raise AtSite(
                f"'{name.text}' is a model of the site {site}, which modeld only reads",
                hint=f"Ask the daemon of that store, or copy it here first: `modelctl cp {name.text} NAME`.",
                details={"name": name.text, "site": site},
            )
        close = self._listing.close_to(name)
        raise NotFound(
            f"there is no model named '{name.text}'",
            hint=f"Did you mean {' or '.join(close)}?" if close else "`modelctl list` shows all models.",
            details={"name": name.text, "close": close},
        )

    def find_with_document(self, text: str) -> tuple[Entry, dict[str, Any]]:
        """As `find`, with the manifest that the entry was read from: it may be replaced between the two reads."""
        while True:
            entry = self.find(text)
            with contextlib.suppress(NotFound):
                document = entry.document()
                if self.find(text).times == entry.times:
                    return entry, document

    def entry(self, name: ModelName) -> Entry | None:
        """The model of exactly this name, in whichever spelling; None when there is none."""
        entry = self._load(name)
        if entry is None:
            spelling = self._listing.spelling(name)
            if spelling is not None and spelling != name.text:
                entry = self._load(ModelName.parse(spelling))
        return entry

    def names(self) -> list[str]:
        return self._listing.names()

    @property
    def count(self) -> int:
        """The number of models at the last look. Never waits."""
        return self._listing.count

    async def entries(self) -> AsyncIterator[Entry]:
        """For the event loop: all models as they are now, in the order of names."""
        names = list(await self.in_thread(self.names))
        for first in range(0, len(names), _AT_ONCE):
            for entry in await self.in_thread(partial(self._entries_of, names[first : first + _AT_ONCE])):
                yield entry

    def all_entries(self) -> Iterator[Entry]:
        """As `entries`, for a thread."""
        for text in self.names():
            if (entry := self.entry(ModelName.parse(text))) is not None:
                yield entry

    def _entries_of(self, names: Sequence[str]) -> list[Entry]:
        entries = [entry for text in names if (entry := self.entry(ModelName.parse(text))) is not None]
        self._records.load(blob.digest for entry in entries for blob in entry.blobs)
        return entries

    def page(self, after: str | None, limit: int | None) -> ModelList:
        """The models that follow a name, in the order of names; `next` when there are more."""
        names = self._listing.names()
        first = 0 if after is None else bisect_right(names, after)
        chosen = names[first:] if limit is None else names[first : first + max(limit, 1)]
        views: list[ModelView] = []
        damaged: list[str] = []
        entries = [entry for text in chosen if (entry := self._remembered(text) or self._load(ModelName.parse(text)))]
        self._records.load(blob.digest for entry in entries for blob in entry.blobs)
        for entry in entries:
            if entry.fault is not None:
                damaged.append(entry.fault.message)
            else:
                views.append(entry.view())
        if after is None:
            damaged += [f"{self._layout.manifests_dir}/{stem}.json: {why}" for stem, why in self._listing.refused]
        more = first + len(chosen) < len(names)
        if not more:
            for text in set(self._entries).difference(names):  # of models that another tool has removed
                self._entries.pop(text, None)
        return ModelList(models=tuple(views), next=chosen[-1] if more else None, damaged=tuple(damaged))

    def seen(self, name: str) -> Entry | None:
        """The model as it was seen last. Never waits."""
        return self._entries.get(name)

    def published_at(self, name: str) -> float:
        """When the manifest of a model that was just listed was written, in seconds since the epoch."""
        entry = self._entries.get(name)
        return 0.0 if entry is None else entry.times[0] / 1e9

    def remembered(self, why: str) -> list[ModelView]:
        """The models as they were last seen, while their root is away; of some only the name is known. Never waits."""
        views = []
        for name in list(self.last_names or ()):
            entry = self._entries.get(name)
            seen = None if entry is None else entry.ready
            seen = seen or ModelView(name=name, format="unknown", blob="", size_bytes=0, state=READY, site=self._site)
            views.append(msgspec.structs.replace(seen, state="unavailable", path=None, reason=why))
        return views

    def may_show(self, stem: str, tree: str) -> bool:
        """Whether the tree, or one below it, may show the model of that name, by what was seen last. Never waits."""
        try:
            name = ModelName.from_stem(stem)
        except InvalidName:
            return False
        entry = self._entries.get(name.text)
        if entry is None:
            return self.last_names is None or self.knows(name)
        return entry.tree is not None and f"{entry.tree}/".startswith(f"{tree}/")

    @property
    def last_names(self) -> list[str] | None:
        """The names of all models at the last look; None before the first. Never waits."""
        return self._listing.last_names

    def knows(self, name: ModelName) -> bool:
        """Whether there was a model of this name at the last look. Never waits."""
        return self._listing.knows(name)

    # -- changes by this daemon

    def forget(self) -> None:
        """For the event loop: drops all cached entries, when something that they depend on has changed."""
        self._forgotten += 1
        entries, self._entries = self._entries, {}
        self.submit(entries.clear)  # of ten thousand models that takes tens of milliseconds
        self.current.forget()

    @contextlib.contextmanager
    def changing(self, name: ModelName) -> Iterator[None]:
        """Around the call that publishes or removes the manifest of this name."""
        with self._listing.changing(name):
            try:
                yield
            finally:
                self._entries.pop(name.text, None)
                self.marks.changed(name)
                self.changed(name.text)

    # -- the disk

    def _remembered(self, text: str) -> Entry | None:
        """The entry of a name whose file has not changed, at half the cost of `_load`."""
        entry = self._entries.get(text)
        if entry is None or not entry.settled:
            return None
        try:
            return entry if times_of(os.lstat(entry.path)) == entry.times else None
        except OSError:
            return None

    def _load(self, name: ModelName) -> Entry | None:
        """The entry of this spelling, from the cache when its file has not changed."""
        path = self._layout.manifest(name)
        try:
            info = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isdir(self._layout.manifests_dir):  # else the root is away, and its models come back
                self._entries.pop(name.text, None)
            return None
        except OSError as fault:
            raise durable.store_fault(fault, "look for the manifest", path) from fault
        entry = self._entries.get(name.text)
        if entry is None or not entry.settled or entry.times != times_of(info):
            forgotten = self._forgotten
            entry = self._read(name, path, info)
            if entry is None:
                self._entries.pop(name.text, None)
            elif forgotten == self._forgotten:
                self._entries[name.text] = entry
        return entry

    def _read(self, name: ModelName, path: str, seen: os.stat_result) -> Entry | None:
        self._check_root()
        started = time.time_ns()
        try:
            manifest, info = manifests.read(path, name)
        except FileNotFoundError:
            return None
        except (WireError, OSError) as error:
            fault = error if isinstance(error, WireError) else durable.store_fault(error, "read the manifest", path)
            return Entry(name, path, times_of(seen), settled(seen, started), None, fault)
        if block := bytes(manifest.model):
            kept = len(self._entries) < _DOCUMENTS and len(block) < _LONGEST_DOCUMENT
            compact = msgspec.Raw(msgspec.json.format(block, indent=-1)) if kept else msgspec.Raw()
            manifest = msgspec.structs.replace(manifest, model=compact)
        blobs = tuple(NamedBlob(self._layout.blob(digest), digest, size) for digest, size in manifest.blobs().items())
        tree = self.trees.path(name, manifest.files) if manifest.files else None
        shown = tree or blobs[0].path
        return Entry(
            name,
            path,
            times_of(info),
            settled(info, started),
            manifest,
            None,
            blobs,
            Resolved(name=name.text, path=shown, blob=manifest.digest.text, state=READY, site=self._site),
            shown_as(manifest, shown, self._site),
            self._why,
            self._records,
            self.trees,
            tree,
            not manifest.files and manifest.digest not in self.trees.linked,
            self._site,
        )
