"""Copies, moves and removes models by their manifests; no blob changes.

A request whose outcome is unknown (the disk failed after the name had changed) can be sent again: it finds the change
and makes it durable.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar, Unpack

import anyio
import msgspec

from modeld.store.catalog.history import THE_DAEMON, History, Requester, rfc3339
from modeld.store.catalog.records import Records
from modeld.store.catalog.uses import Uses
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import StoreLock
from modeld.store.manifests import writing
from modeld.store.manifests.entries import Entry, get_again
from modeld.store.manifests.index import Index
from modeld.store.manifests.manifests import Manifest
from modeld.store.names import ModelName
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import NameChanges, Terms, announced
from modeld.store.publish.name_locks import never
from modeld.store.publish.owners import check_hides_no_other, check_owner
from modelwire.errors import AlreadyExists, Corrupt, InUse, NotFound, Unsupported, WireError
from modelwire.values import Copied, Moved, Pinned, PlanStep, Removed

Change = TypeVar("Change", Copied, Moved, Removed, Pinned)

InThread = Callable[[Callable[[], bool]], Awaitable[bool]]

PINNED: Final = "pinned"
"""The field of the manifest."""

_REMEMBERED: Final = 256
"""Requests whose outcome is unknown: each needs a failing disk, and is forgotten when it succeeds."""


@dataclass(frozen=True, slots=True)
class _Plan(Generic[Change]):
    """The change that a request makes, as the store is now."""

    value: Change
    names: tuple[ModelName, ...]
    """As the manifest files spell them: other tools lock these spellings."""
    carry_out: Callable[[], Awaitable[None]]
    leaves: ModelName | None = None
    """The name that has no model afterwards."""
    complete: Callable[[Change], Awaitable[Change]] | None = None
    """Adds to the value, in the publisher's turn, what takes the disk to find out."""


async def _nothing() -> None:
    """Of a change that has taken place."""


class _Kind(Generic[Change]):
    """One kind of change. `visible` returns whether readers see the change, `complete` whether all of it is done; both
    block."""

    def __init__(self, complete: Callable[[Change], bool], visible: Callable[[Change], bool] | None = None) -> None:
        self.complete: Callable[[Change], bool] = complete
        self._visible: Callable[[Change], bool] = visible or complete
        self._unsettled: dict[tuple[str, ...], Change] = {}
        """By request: the change that was made but may not be durable."""

    def unsettled(self, *request: str) -> Change | None:
        return self._unsettled.get(request)

    def settle(self, *request: str) -> None:
        self._unsettled.pop(request, None)

    @asynccontextmanager
    async def remembering(self, in_thread: InThread, value: Change, *request: str) -> AsyncIterator[None]:
        """Around a change: after a failure it remembers the visible change for the next request of the same kind."""
        try:
            yield
        except WireError:
            if await in_thread(partial(self._visible, value)):
                self._unsettled[request] = value
                while len(self._unsettled) > _REMEMBERED:
                    del self._unsettled[next(iter(self._unsettled))]
            raise
        self.settle(*request)


class Renaming:
    """`copy`, `move` and `remove` are for the event loop; the rest looks at the disk, and blocks. `earlier` is the
    change that an interrupted attempt had announced."""

    def __init__(
        self,
        name_changes: NameChanges,
        lock: StoreLock,
        holds: Holds,
        records: Records,
        uses: Uses,
        history: History,
        *,
        sweep_after: float | None = None,
    ) -> None:
        """`sweep_after`: how many seconds after a removal the daemon sweeps by itself; None when it does not."""
        self._name_changes = name_changes
        self._index = name_changes.index
        self._layout = name_changes.layout
        self._lock = lock
        self._holds = holds
        self._records = records
        self._uses = uses
        self._history = history
        self._sweep_after = sweep_after
        self._copies = _Kind[Copied](self.copied)
        self._moves = _Kind[Moved](self.moved, lambda value: self._half_moved(value) or self.moved(value))
        self._removals = _Kind[Removed](self.removed)
        self._pins = _Kind[Pinned](self.stays)

    async def _change(
        self,
        kind: _Kind[Change],
        request: tuple[str, ...],
        plan: Callable[[], _Plan[Change]],
        **terms: Unpack[Terms[Change]],
    ) -> Change:
        """Plans twice: first to refuse at once what cannot be done, then again in the publisher's turn."""
        in_thread = self._name_changes.in_thread
        await in_thread(self._lock.check)
        known = kind.unsettled(*request)
        if known is not None and await in_thread(partial(kind.complete, known)):
            await in_thread(partial(writing.sync_names, self._layout))
            kind.settle(*request)
            return known
        order, stopped, notes = terms.get("order", 0), terms.get("stopped", never), terms.get("notes")
        names = (await in_thread(plan)).names
        async with self._name_changes.turn(order, *names, stopped=stopped, notes=notes):
            planned = await in_thread(plan)
            value = planned.value if planned.complete is None else await planned.complete(planned.value)
            with anyio.CancelScope(shield=True):
                async with kind.remembering(in_thread, value, *request), announced(notes, value):
                    await planned.carry_out()
                if planned.leaves is not None:
                    await self._remove_trees(planned.leaves)
        return value

    async def _remove_trees(self, name: ModelName) -> None:
        """Removes the model's trees. A sweep removes what cannot be removed now."""
        trees = self._layout.trees_of(name)
        if self._holds.is_held(trees):
            return
        with suppress(WireError, OSError):
            remove = partial(self._index.trees.remove, trees)
            await self._records.record_relinked(await self._name_changes.in_thread(remove))

    # -- cp

    def plan_copy(self, source: str, destination: str, requester: Requester = THE_DAEMON) -> Copied:
        """The result that `copy` would return; raises what it would raise."""
        value, _, _ = self._planned(source, destination, requester)
        return value

    async def copy(self, source: str, destination: str, **terms: Unpack[Terms[Copied]]) -> Copied:
        """The copy belongs to the requester, whoever owns the source."""
        requester = terms.get("requester", THE_DAEMON)

        def plan() -> _Plan[Copied]:
            value, name, document = self._planned(source, destination, requester)
            return _Plan(value, (name,), lambda: self._name_changes.write(name, document))

        return await self._change(self._copies, (source, destination), plan, **terms)

    def copied(self, value: Copied) -> bool:
        """Whether that copy exists: a restart checks it for an interrupted job."""
        there = self._standing(value.name)
        return there is not None and there.listed == value.blobs

    def _planned(self, source: str, destination: str, requester: Requester) -> tuple[Copied, ModelName, dict[str, Any]]:
        wanted, name = ModelName.parse(source), ModelName.parse(destination)
        entry, document = self._index.find_with_document(wanted.text)
        if name.key in (wanted.key, entry.name.key):
            raise _onto_itself(entry.name, name, "copied")
        self._check_vacant(name, requester)
        manifest = _with_bytes(entry)
        owner = {} if requester.peer is None else {"owner_uid": requester.peer}
        document = {key: value for key, value in document.items() if key != PINNED} | {"name": name.text} | owner
        steps = [
            PlanStep(action="share", path=self._layout.blob(Digest.parse(blob)), size_bytes=size, blob=blob)
            for blob, size in entry.listed_sizes()
        ]
        size = len(writing.encode(document))
        value = Copied(
            name=name.text,
            source=manifest.name,
            blob=manifest.blob,
            size_bytes=entry.total_bytes(),
            blobs=manifest.listed,
            plan=(*steps, PlanStep(action="write", path=self._layout.manifest(name), size_bytes=size)),
        )
        return value, name, document

    # -- mv

    async def move(
        self, source: str, destination: str, *, earlier: Moved | None = None, **terms: Unpack[Terms[Moved]]
    ) -> Moved:
        """Makes the new name before it removes the old one: readers always find at least one of them."""
        old, new = ModelName.parse(source), ModelName.parse(destination)
        earlier = earlier or self._moves.unsettled(source, destination)
        requester = terms.get("requester", THE_DAEMON)

        def plan() -> _Plan[Moved]:
            if earlier is not None and self.moved(earlier):
                return _Plan(earlier, (old, new), _nothing)  # others have changed the old name since
            half = self._half_moved(earlier)
            entry = self._exact(old)
            check_owner(entry, requester, "moved")
            if not half:
                self._check_movable(entry, old, new, requester)
            manifest = entry.usable()
            value = Moved(name=new.text, source=manifest.name, blob=manifest.blob, size_bytes=entry.total_bytes())
            document = None if half else entry.document() | {"name": new.text}

            async def carry_out() -> None:
                if document is not None:
                    await self._name_changes.write(new, document)
                # ---- The new name exists: from here on the old one must be removed. ----
                await self._name_changes.withdraw(entry.name)
                self._uses.moved(entry.name.text, new.text)
                self._uses.forget(entry.name.text)

            return _Plan(value, (entry.name, new), carry_out, leaves=entry.name)

        moved = await self._change(self._moves, (source, destination), plan, **terms)
        await self._history.rename(ModelName.parse(moved.source), new)
        return moved

    def moved(self, value: Moved) -> bool:
        """Whether only the new name stands for these bytes now."""
        there, left = self._standing(value.name), self._standing(value.source)
        return there is not None and there.blob == value.blob and (left is None or left.blob != value.blob)

    def _half_moved(self, earlier: Moved | None) -> bool:
        """Whether both names exist."""
        if earlier is None:
            return False
        there, left = self._standing(earlier.name), self._standing(earlier.source)
        return there is not None and left is not None and there.listed == left.listed

    def _check_movable(self, entry: Entry, old: ModelName, new: ModelName, requester: Requester) -> None:
        if new.key in (old.key, entry.name.key):
            raise _onto_itself(entry.name, new, "moved")
        self._check_vacant(new, requester)
        entry.usable()
        self._holds.check_free(entry.name, "moved")

    # -- rm

    async def remove(self, name: str, *, force: bool = False, **terms: Unpack[Terms[Removed]]) -> Removed:
        """Removes the manifest; the blobs stay. A damaged manifest can be removed too."""
        wanted = ModelName.parse(name)
        requester = terms.get("requester", THE_DAEMON)

        def plan() -> _Plan[Removed]:
            entry = self._removable(wanted, force, requester)
            manifest = entry.manifest
            value = Removed(
                name=entry.name.text,
                blob=None if manifest is None else manifest.blob,
                size_bytes=0 if manifest is None else entry.total_bytes(),
            )

            async def carry_out() -> None:
                await self._name_changes.withdraw(entry.name)
                self._uses.forget(entry.name.text)

            return _Plan(value, (entry.name,), carry_out, leaves=entry.name, complete=partial(self._weighed, entry))

        removed = await self._change(self._removals, (name,), plan, **terms)
        await self._history.forget_name(ModelName.parse(removed.name))
        return removed

    async def _weighed(self, entry: Entry, value: Removed) -> Removed:
        """The value with the blobs that nothing else needs, and when the daemon sweeps them."""
        held = self._holds.blobs()
        named = [] if entry.manifest is None else [each for each in entry.manifest.blobs() if each.hex not in held]
        find = partial(_only_named_by, self._index, self._layout, entry.name, named)
        found = await self._name_changes.in_thread(find)
        at = None if self._sweep_after is None or not found else rfc3339(time.time() + self._sweep_after)
        return msgspec.structs.replace(
            value, blobs=tuple(digest.text for digest in found), frees_bytes=sum(found.values()), frees_at=at
        )

    def removed(self, value: Removed) -> bool:
        """Whether the name no longer stands for what was removed."""
        entry = self._index.entry(ModelName.parse(value.name))
        return entry is None or (entry.manifest is not None and entry.manifest.blob != value.blob)

    def _removable(self, name: ModelName, force: bool, requester: Requester) -> Entry:
        entry = self._exact(name)
        check_owner(entry, requester, "removed")
        if isinstance(entry.fault, Unsupported):
            raise entry.fault
        if not force:
            self._holds.check_free(entry.name, "removed")
            if _is_pinned(entry.manifest):
                raise InUse(
                    f"'{entry.name.text}' cannot be removed: it is pinned",
                    hint=f"Run `modelctl unpin {entry.name.text}` first. `--force` removes it nevertheless.",
                    retryable=False,
                    details={"name": entry.name.text, "pinned": True},
                )
        return entry

    # -- pin, unpin

    async def pin(self, name: str, *, pinned: bool = True, **terms: Unpack[Terms[Pinned]]) -> Pinned:
        """The pin is in the manifest: it is lost only with the model. It stays when the name gets other bytes or the
        model another name; a copy has none."""
        wanted, requester = ModelName.parse(name), terms.get("requester", THE_DAEMON)

        def plan() -> _Plan[Pinned]:
            entry = self._exact(wanted)
            check_owner(entry, requester, "pinned" if pinned else "unpinned")
            manifest, document = entry.usable(), entry.document()
            changed = _is_pinned(manifest) != pinned
            value = Pinned(name=entry.name.text, blob=manifest.blob, pinned=pinned, changed=changed)
            document.pop(PINNED, None)
            if pinned:
                document[PINNED] = True
            write = partial(self._name_changes.write, entry.name, document, replace=True)
            return _Plan(value, (entry.name,), write if changed else _nothing)

        return await self._change(self._pins, (name, str(pinned)), plan, **terms)

    def stays(self, value: Pinned) -> bool:
        """Whether the model is pinned, or not, as `value` says."""
        standing = self._standing(value.name)
        return standing is not None and _is_pinned(standing) == value.pinned

    # -- the steps that all of them take

    def _exact(self, name: ModelName) -> Entry:
        """The model of exactly this name: a change of a name does not add the default tag."""
        entry = self._index.entry(name)
        if entry is not None:
            return entry
        tagged = name.with_default_tag
        if tagged is not None and (found := self._index.entry(tagged)) is not None:
            raise NotFound(
                f"there is no model named '{name.text}', only '{found.name.text}'",
                hint=f"Use '{found.name.text}' if you mean that model.",
                details={"name": name.text, "close": [found.name.text]},
            )
        self._index.find(name.text)
        raise NotFound(f"there is no model named '{name.text}'", details={"name": name.text})

    def _check_vacant(self, name: ModelName, requester: Requester) -> None:
        standing = self._index.entry(name)
        if standing is None:
            check_hides_no_other(self._index, name, requester)
            return
        if standing.name.text == name.text:
            raise AlreadyExists(
                f"there is already a model named '{name.text}'",
                hint="Choose another name, or remove that model first.",
                details={"name": name.text},
            )
        raise AlreadyExists(
            f"'{name.text}' is another spelling of '{standing.name.text}', which is already there",
            hint="Choose a name that differs in more than case.",
            details={"name": name.text, "existing": standing.name.text},
        )

    def _standing(self, text: str) -> Manifest | None:
        try:
            entry = self._index.entry(ModelName.parse(text))
        except WireError:
            return None
        return None if entry is None else entry.manifest


def _is_pinned(manifest: Manifest | None) -> bool:
    return manifest is not None and manifest.pinned is True


def _only_named_by(index: Index, layout: Layout, name: ModelName, digests: Sequence[Digest]) -> dict[Digest, int]:
    """Blocking: those of the blobs that no other manifest names, with the bytes that their removal gives back."""
    alone = index.marks.named_only_by(name, [digest.hex for digest in digests])
    found: dict[Digest, int] = {}
    for digest in digests:
        if digest.hex in alone:
            with suppress(OSError):
                size = os.lstat(layout.blob(digest)).st_size
                # The bytes of a linked blob stay where its other name is.
                found[digest] = 0 if digest in index.trees.linked else size
    return found


def _with_bytes(entry: Entry) -> Manifest:
    manifest, look = entry.usable(), entry.look()
    if look.has_bytes:
        return manifest
    raise Corrupt(
        f"'{manifest.name}' has no bytes and cannot be copied: {look.reason}",
        hint=get_again(manifest),
        details={"name": manifest.name, "blob": manifest.blob, "reason": look.reason},
    )


def _onto_itself(name: ModelName, other: ModelName, done: str) -> AlreadyExists:
    spelled = "itself" if name.text == other.text else f"'{other.text}', which is the same name"
    return AlreadyExists(
        f"'{name.text}' cannot be {done} onto {spelled}",
        hint="Choose a name that differs in more than case.",
        details={"name": other.text, "existing": name.text},
    )
