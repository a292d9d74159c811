"""Copies, moves and removes models by their manifests; no blob changes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Unpack

import msgspec

from modeld.store.catalog.history import THE_DAEMON, History, Requester, rfc3339
from modeld.store.catalog.uses import Uses
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.manifests import writing
from modeld.store.manifests.entries import Entry, get_again
from modeld.store.manifests.index import Index
from modeld.store.manifests.manifests import Manifest
from modeld.store.names import ModelName
from modeld.store.publish import pinning
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import NameChanges, Terms
from modeld.store.publish.owners import OWNER, check_hides_no_other, check_owner
from modeld.store.publish.planned_changes import Kind, Plan, PlannedChanges, nothing
from modeld.store.publish.quotas import check_quota
from modelwire.errors import AlreadyExists, Corrupt, Unsupported
from modelwire.values import Copied, Moved, PlanStep, Removed

AtHand = tuple[Entry, dict[str, Any]]
"""A model of a site, and its manifest as it is in the file."""


class Renaming:
    """`copy`, `move` and `remove` are for the event loop; the rest looks at the disk, and blocks. `earlier` is the
    change that an interrupted attempt had announced."""

    def __init__(
        self,
        name_changes: NameChanges,
        changes: PlannedChanges,
        holds: Holds,
        uses: Uses,
        history: History,
        *,
        sweep_after: float | None = None,
    ) -> None:
        """`sweep_after`: how many seconds after a removal the daemon sweeps by itself; None when it does not."""
        self._name_changes = name_changes
        self._index = name_changes.index
        self._layout = name_changes.layout
        self._changes = changes
        self._holds = holds
        self._uses = uses
        self._history = history
        self._sweep_after = sweep_after
        self._copies = Kind[Copied](self.copied)
        self._moves = Kind[Moved](self.moved, lambda value: self._half_moved(value) or self.moved(value))
        self._removals = Kind[Removed](self.removed)

    # -- cp

    def plan_copy(
        self, source: str, destination: str, requester: Requester = THE_DAEMON, at: AtHand | None = None
    ) -> Copied:
        """The result that `copy` would return; raises what it would raise."""
        value, _, _ = self.planned(source, destination, requester, at)
        return value

    async def copy(
        self, source: str, destination: str, *, at: AtHand | None = None, **terms: Unpack[Terms[Copied]]
    ) -> Copied:
        """The copy belongs to the requester, whoever owns the source. `at` is the source when a site
        has it, with its blobs in the store by then."""
        requester = terms.get("requester", THE_DAEMON)

        def plan() -> Plan[Copied]:
            value, name, document = self.planned(source, destination, requester, at)
            return Plan(value, (name,), lambda: self._name_changes.write(name, document))

        return await self._changes.carry_out(self._copies, (source, destination), plan, **terms)

    def copied(self, value: Copied) -> bool:
        """Whether that copy exists: a restart checks it for an interrupted job."""
        there = self._changes.standing(value.name)
        return there is not None and there.listed == value.blobs

    def planned(
        self,
        source: str,
        destination: str,
        requester: Requester,
        at: AtHand | None = None,
        *,
        replaces: bool = False,
        kept: Mapping[Digest, int] | None = None,
    ) -> tuple[Copied, ModelName, dict[str, Any]]:
        """The copy, its name and its manifest; raises when the requester must not make it. With `replaces` the name may
        stand for another model; `kept` is as for `check_quota`."""
        wanted, name = ModelName.parse(source), ModelName.parse(destination)
        entry, document = at or self._index.find_with_document(wanted.text)
        if at is None and name.key in (wanted.key, entry.name.key):
            raise _onto_itself(entry.name, name, "copied")
        if not replaces:
            self.check_vacant(name, requester)
        manifest = _with_bytes(entry)
        check_quota(self._index, requester.quota, name, manifest.blobs(), kept)
        owner = {} if requester.peer is None else {OWNER: requester.peer}
        document = {key: value for key, value in document.items() if key != pinning.FIELD}
        document = writing.renamed(document, name, copy=True) | owner
        steps = [
            PlanStep(
                action="share" if at is None else "copy",
                path=self._layout.blob(Digest.parse(blob)),
                size_bytes=size,
                blob=blob,
            )
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

        def plan() -> Plan[Moved]:
            if earlier is not None and self.moved(earlier):
                return Plan(earlier, (old, new), nothing)  # others have changed the old name since
            half = self._half_moved(earlier)
            entry = self._changes.exact(old)
            check_owner(entry, requester, "moved")
            if not half:
                self._check_movable(entry, old, new, requester)
            manifest = entry.usable()
            value = Moved(name=new.text, source=manifest.name, blob=manifest.blob, size_bytes=entry.total_bytes())
            document = None if half else writing.renamed(entry.document(), new)

            async def carry_out() -> None:
                if document is not None:
                    await self._name_changes.write(new, document)
                # ---- The new name exists: from here on the old one must be removed. ----
                await self._history.rename(entry.name, new)
                await self._name_changes.withdraw(entry.name)
                self._uses.moved(entry.name.text, new.text)
                self._uses.forget(entry.name.text)

            return Plan(value, (entry.name, new), carry_out, leaves=entry.name)

        return await self._changes.carry_out(self._moves, (source, destination), plan, **terms)

    def moved(self, value: Moved) -> bool:
        """Whether only the new name stands for these bytes now."""
        there, left = self._changes.standing(value.name), self._changes.standing(value.source)
        return there is not None and there.blob == value.blob and (left is None or left.blob != value.blob)

    def _half_moved(self, earlier: Moved | None) -> bool:
        """Whether both names exist."""
        if earlier is None:
            return False
        there, left = self._changes.standing(earlier.name), self._changes.standing(earlier.source)
        return there is not None and left is not None and there.listed == left.listed

    def _check_movable(self, entry: Entry, old: ModelName, new: ModelName, requester: Requester) -> None:
        if new.key in (old.key, entry.name.key):
            raise _onto_itself(entry.name, new, "moved")
        self.check_vacant(new, requester)
        entry.usable()
        self._holds.check_free(entry.name, "moved")

    # -- rm

    async def remove(
        self,
        name: str,
        *,
        force: bool = False,
        check: Callable[[Entry], None] = lambda _: None,
        **terms: Unpack[Terms[Removed]],
    ) -> Removed:
        """Removes the manifest; the blobs stay. A damaged manifest can be removed too. `check`, which may block, raises
        when the model must stay; the last call is in the publisher's turn."""
        wanted = ModelName.parse(name)
        requester = terms.get("requester", THE_DAEMON)

        def plan() -> Plan[Removed]:
            entry = self._removable(wanted, force, requester)
            check(entry)
            manifest = entry.manifest
            value = Removed(
                name=entry.name.text,
                blob=None if manifest is None else manifest.blob,
                size_bytes=0 if manifest is None else entry.total_bytes(),
            )

            async def carry_out() -> None:
                await self._name_changes.withdraw(entry.name)
                self._uses.forget(entry.name.text)

            return Plan(value, (entry.name,), carry_out, leaves=entry.name, complete=partial(self._weighed, entry))

        removed = await self._changes.carry_out(self._removals, (name,), plan, **terms)
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
        entry = self._changes.exact(name)
        check_owner(entry, requester, "removed")
        if isinstance(entry.fault, Unsupported):
            raise entry.fault
        if not force:
            self._holds.check_free(entry.name, "removed")
            pinning.check_not_pinned(entry)
        return entry

    # -- the steps that all of them take

    def check_vacant(self, name: ModelName, requester: Requester) -> None:
        standing = self._index.entry(name)
        if standing is None:
            registrations = self._name_changes.registrations
            check_hides_no_other(self._index, registrations, name, requester)
            if (registration := registrations.of(name)) is not None:
                raise AlreadyExists(
                    f"'{registration.name}' is registered for a model whose bytes are not here",
                    hint="Choose another name, or remove that registration first.",
                    details={"name": name.text, "existing": registration.name},
                )
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
        hint=get_again(entry),
        details={"name": manifest.name, "blob": manifest.blob, "reason": look.reason},
    )


def _onto_itself(name: ModelName, other: ModelName, done: str) -> AlreadyExists:
    spelled = "itself" if name.text == other.text else f"'{other.text}', which is the same name"
    return AlreadyExists(
        f"'{name.text}' cannot be {done} onto {spelled}",
        hint="Choose a name that differs in more than case.",
        details={"name": other.text, "existing": name.text},
    )
