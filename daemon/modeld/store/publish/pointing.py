"""Points a name to another version of its model. The old version keeps a name."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any, Final, Unpack

from modeld.store.catalog.history import THE_DAEMON, Requester
from modeld.store.manifests import writing
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.manifests import Manifest
from modeld.store.names import ModelName, is_place
from modeld.store.publish import pinning
from modeld.store.publish.name_changes import NameChanges, Terms
from modeld.store.publish.owners import OWNER, check_hides_no_other, check_owner, check_registrant, new_owner
from modeld.store.publish.planned_changes import Kind, Plan, PlannedChanges
from modeld.store.publish.renaming import Renaming
from modelwire.errors import AlreadyExists, InvalidName, PermissionDenied, WireError
from modelwire.values import Copied

_SHORT: Final = 12
"""Hex digits of a digest in a name."""

_BASE: Final = 100
"""Characters of the name before them; a name has at most 128."""

_MOST_TRIED: Final = 100
"""Names that are tried for one model. They are all taken only if a user takes them on purpose."""


class Pointing:
    """`point` is for the event loop; the rest looks at the disk, and blocks."""

    def __init__(self, name_changes: NameChanges, changes: PlannedChanges, renaming: Renaming) -> None:
        self._name_changes = name_changes
        self._index = name_changes.index
        self._changes = changes
        self._renaming = renaming
        self._points = Kind[Copied](renaming.copied)

    async def point(self, name: str, version: str, blob: str, **terms: Unpack[Terms[Copied]]) -> Copied:
        """Makes the name stand for what another one stands for, in one step: a reader finds the old model or the new
        one. Its pin and its owner stay, and its ids but those that say where bytes are from. What it stood for gets
        another name before, unless it has one. Raises AlreadyExists when the other name stands for other bytes than
        `blob`."""
        requester = terms.get("requester", THE_DAEMON)

        def plan() -> Plan[Copied]:
            standing = self.check(ModelName.parse(name), requester)
            kept = None if standing is None else self._kept(standing, requester)
            registration = None if standing is not None else self._name_changes.registrations.of(ModelName.parse(name))
            quota = requester.quota
            counts = standing is not None and standing.owner is not None and quota and quota.counts(standing.owner)
            stays = standing.usable().blobs() if standing is not None and kept is not None and counts else None
            value, to, document = self._renaming.planned(version, name, requester, replaces=True, kept=stays)
            if value.blob != blob:
                raise AlreadyExists(
                    f"'{version}' has been given to other bytes, {value.blob}",
                    hint="Find out by whom: `modelctl log` has it. Versions have names of their own.",
                    details={"name": version, "existing": value.blob, "wanted": blob},
                )
            if standing is not None:
                before = standing.document()
                document |= {field: before[field] for field in (pinning.FIELD, OWNER) if field in before}
                if (owner := new_owner(requester, standing)) is not None:
                    document[OWNER] = owner
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

        return await self._changes.carry_out(self._points, (version, name), plan, **terms)

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
        """The name is made of the digest: the model may have no version."""
        made = f"{name.base[:_BASE]}-{manifest.digest.hex[:_SHORT]}"
        for text in (made, *(f"{made}-{number}" for number in range(2, _MOST_TRIED))):
            with suppress(InvalidName, AlreadyExists, PermissionDenied):
                wanted = ModelName.parse(text)
                self._renaming.check_vacant(wanted, requester)
                return wanted
        raise AlreadyExists(
            f"'{name.text}' is the last name of its model, and all names for it are taken, such as '{made}'",
            hint=f"Give it another name first: `modelctl cp {name.text} NAME`.",
            details={"name": name.text},
        )

    def check(self, name: ModelName, requester: Requester) -> Entry | None:
        """What the name stands for now. Raises when the requester must not give it to another model, and when it stands
        for one whose manifest cannot be read."""
        standing, registrations = self._index.entry(name), self._name_changes.registrations
        if standing is None and (registration := registrations.of(name)) and registration.name == name.text:
            check_hides_no_other(self._index, registrations, name, requester)
            check_registrant(registration, requester, "replaced")
            return None
        if standing is None or standing.name.text != name.text:
            self._renaming.check_vacant(name, requester)
            return None
        check_owner(standing, requester, "replaced")
        if standing.fault is not None:
            raise standing.fault
        return standing
