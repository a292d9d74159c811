"""Copies, moves and removes models by their manifests; no blob changes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Unpack

import msgspec

from modeld.store.catalog.history import THE_DAEMON, History, Requester, rfc3339
from modeld.store.catalog.uses import Uses
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.manifests import writing
from modeld.store.manifests.entries import Entry, get_again
from modeld.store.manifests.index import Index
from modeld.store.manifests.manifests import Manifest
from modeld.store.names import ModelName, is_place
from modeld.store.publish import pinning
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import NameChanges, Terms
from modeld.store.publish.owners import check_hides_no_other, check_owner, check_registrant, new_owner
from modeld.store.publish.planned_changes import Kind, Plan, PlannedChanges, nothing
from modeld.store.publish.quotas import check_quota
from modelwire.errors import AlreadyExists, Corrupt, InvalidName, PermissionDenied, Unsupported, WireError
from modelwire.values import Copied, Moved, PlanStep, Removed

AtHand = tuple[Entry, dict[str, Any]]
"""A model of a site, and its manifest as it is in the file."""


_OWNER: Final = "owner_uid"

_SHORT: Final = 12
"""Hex digits of a digest in a name."""

_BASE: Final = 100
"""Characters of the name before them; a name has at most 128."""

_MOST_TRIED: Final = 100
"""Names for one model. More are taken by nobody who means well."""


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
        value, _, _ = self._planned(source, destination, requester, at)
        return value

    async def copy(
        self, source: str, destination: str, *, at: AtHand | None = None, **terms: Unpack[Terms[Copied]]
    ) -> Copied:
        """The copy belongs to the requester, whoever owns the source. `at` is the source when a site
        has it, with its blobs in the store by then."""
        requester = terms.get("requester", THE_DAEMON)

        def plan() -> Plan[Copied]:
            value, name, document = self._planned(source, destination, requester, at)
            return Plan(value, (name,), lambda: self._name_changes.write(name, document))

        return await self._changes.carry_out(self._copies, (source, destination), plan, **terms)

    # -- a name that goes on to another version

    async def point(self, name: str, version: str, blob: str, **terms: Unpack[Terms[Copied]]) -> Copied:
        """Makes the name stand for what another one stands for, in one step: a reader finds the old model or the new
        one. Its pin and its owner stay, and its ids but those that say where bytes are from. What it stood for gets
        another name before, unless it has one. Raises AlreadyExists when the other name stands for other bytes than
        `blob`."""
        requester = terms.get("requester", THE_DAEMON)

        def plan() -> Plan[Copied]:
            standing = self.check_pointable(ModelName.parse(name), requester)
            kept = None if standing is None else self._kept(standing, requester)
            registration = None if standing is not None else self._name_changes.registrations.of(ModelName.parse(name))
            quota = requester.quota
            counts = standing is not None and standing.owner is not None and quota and quota.counts(standing.owner)
            stays = standing.usable().blobs() if standing is not None and kept is not None and counts else None
            value, to, document = self._planned(version, name, requester, None, replaces=True, kept=stays)
            if value.blob != blob:
                raise AlreadyExists(
                    f"'{version}' has been given to other bytes, {value.blob}",
                    hint="Find out by whom: `modelctl log` has it. Versions have names of their own.",
                    details={"name": version, "existing": value.blob, "wanted": blob},
                )
            if standing is not None:
                before = standing.document()
                document |= {field: before[field] for field in (pinning.FIELD, _OWNER) if field in before}
                if (owner := new_owner(requester, standing)) is not None:
                    document[_OWNER] = owner
                if ids := [id_ for id_ in standing.ids if not is_place(id_)]:
                    document[writing.IDS] = ids

            async def carry_out() -> None:
                if kept is not None:
                    await self._name_changes.write(*kept)
                await self._name_changes.write(to, document, replace=True)
                if registration is not None:
                    with suppress(WireError):  # the next start finds the manifest, and ends it then
                        await self._name_changes.in_thread(partial(self._name_changes.registrations.end, to))

            return Plan(value, (to,) if kept is None else (to, kept[0]), carry_out)

        return await self._changes.carry_out(self._copies, (version, name, "point"), plan, **terms)

    def _kept(self, standing: Entry, requester: Requester) -> tuple[ModelName, dict[str, Any]] | None:
        """A name for what a name stands for, and its manifest; None when another name of its owner stands for the same,
        and when the bytes are not here. It stays its owner's, and is known by where it is from."""
        manifest = standing.usable()
        if not standing.look().has_bytes:
            return None
        for stem in self._index.marks.mentioning(manifest.digest.hex):
            with suppress(InvalidName):
                other = self._index.entry(ModelName.from_stem(stem))
                if other is None or other.manifest is None or other.name == standing.name:
                    continue
                # That of another user may go at any time.
                if other.owner == standing.owner and other.manifest.content == manifest.content:
                    return None
        name = self._free_name(standing.name, manifest, requester)
        document = writing.renamed(standing.document(), name)
        document = {field: value for field, value in document.items() if field not in (pinning.FIELD, writing.IDS)}
        if ids := [id_ for id_ in standing.ids if is_place(id_)]:
            document[writing.IDS] = ids
        return name, document

    def _free_name(self, name: ModelName, manifest: Manifest, requester: Requester) -> ModelName:
        """Made of the digest: nobody may have said which version it is."""
        made = f"{name.base[:_BASE]}-{manifest.digest.hex[:_SHORT]}"
        for text in (made, *(f"{made}-{number}" for number in range(2, _MOST_TRIED))):
            with suppress(InvalidName, AlreadyExists, PermissionDenied):
                wanted = ModelName.parse(text)
                self._check_vacant(wanted, requester)
                return wanted
        raise AlreadyExists(
            f"'{name.text}' is the last name of its model, and all names for it are taken, such as '{made}'",
            hint=f"Give it another name first: `modelctl cp {name.text} NAME`.",
            details={"name": name.text},
        )

    def check_pointable(self, name: ModelName, requester: Requester) -> Entry | None:
        """What the name stands for now. Raises when the requester must not give it to another model, and when it stands
        for one whose manifest cannot be read."""
        standing, registrations = self._index.entry(name), self._name_changes.registrations
        if standing is None and (registration := registrations.of(name)) and registration.name == name.text:
            check_hides_no_other(self._index, registrations, name, requester)
            check_registrant(registration, requester, "replaced")
            return None
        if standing is None or standing.name.text != name.text:
            self._check_vacant(name, requester)
            return None
        check_owner(standing, requester, "replaced")
        if standing.fault is not None:
            raise standing.fault
        return standing

    def copied(self, value: Copied) -> bool:
        """Whether that copy exists: a restart checks it for an interrupted job."""
        there = self._changes.standing(value.name)
        return there is not None and there.listed == value.blobs

    def _planned(
        self,
        source: str,
        destination: str,
        requester: Requester,
        at: AtHand | None,
        *,
        replaces: bool = False,
        kept: Mapping[Digest, int] | None = None,
    ) -> tuple[Copied, ModelName, dict[str, Any]]:
        """`kept` as for `check_quota`."""
        wanted, name = ModelName.parse(source), ModelName.parse(destination)
        entry, document = at or self._index.find_with_document(wanted.text)
        if at is None and name.key in (wanted.key, entry.name.key):
            raise _onto_itself(entry.name, name, "copied")
        if not replaces:
            self._check_vacant(name, requester)
        manifest = _with_bytes(entry)
        check_quota(self._index, requester.quota, name, manifest.blobs(), kept)
        owner = {} if requester.peer is None else {_OWNER: requester.peer}
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
        self._check_vacant(new, requester)
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

    def _check_vacant(self, name: ModelName, requester: Requester) -> None:
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
