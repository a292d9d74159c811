"""Copying, moving and removing models: manifests only, no byte of a blob.

A request whose outcome is unknown (the disk failed after the name had changed) can be asked again: it finds what it
did and makes it last.
"""

from __future__ import annotations

import os
from typing import Any, cast

import anyio

from modeld.store.catalog.uses import Uses
from modeld.store.manifests import manifests
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.manifests import Manifest
from modeld.store.names import ModelName
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import NameChanges, Stop, never
from modeld.store.publish.publishing import Counter, Notes
from modeld.store.publish.records import Records
from modelwire.errors import AlreadyExists, Corrupt, NotFound, Unsupported, WireError
from modelwire.values import Copied, Moved, PlanStep, Removed


class Naming:
    """For the event loop. `earlier` is what an attempt that was cut short had announced."""

    def __init__(self, counter: Counter, records: Records, holds: Holds, uses: Uses) -> None:
        self._changes = NameChanges(counter, records)
        self._index = counter.index
        self._layout = counter.layout
        self._holds = holds
        self._uses = uses

    # -- cp

    def plan_copy(self, source: str, destination: str) -> Copied:
        """What a copy would do; raises what it would raise."""
        value, _, _ = self._planned(source, destination)
        return value

    async def copy(
        self,
        source: str,
        destination: str,
        *,
        order: int = 0,
        notes: Notes[Copied] | None = None,
        stopped: Stop = never,
    ) -> Copied:
        key = ("copy", source, destination)
        if (done := await self._changes.made_lasting(key, self.copied)) is not None:
            return done
        self._planned(source, destination)
        async with self._changes.turn(order, stopped, ModelName.parse(destination)):
            value, name, document = self._planned(source, destination)
            with anyio.CancelScope(shield=True), self._changes.remembering(key, value, self.copied):
                if notes is not None:
                    await notes.about_to_publish(value)
                await self._changes.publish(name, document)
                # ---- The copy is there: from here on nothing is taken back. ----
                if notes is not None:
                    await notes.published(value)
        return value

    def copied(self, value: Copied) -> bool:
        """Whether that copy exists: what a restart asks about a job cut short."""
        there = self._standing(value.name)
        return there is not None and _blobs(there) == value.blobs

    def _planned(self, source: str, destination: str) -> tuple[Copied, ModelName, dict[str, Any]]:
        wanted = ModelName.parse(source), ModelName.parse(destination)
        entry = self._index.find(wanted[0].text)
        name = wanted[1]
        if name.key in (wanted[0].key, entry.name.key):
            raise _onto_itself(entry.name, name, "copied")
        self._check_vacant(name)
        manifest = _with_bytes(entry, "copied")
        document = entry.document() | {"name": name.text}
        steps = [
            PlanStep(action="share", path=path, size_bytes=size, blob=_digest_of(path)) for path, size in entry.blobs
        ]
        size = len(manifests.encode(document))
        value = Copied(
            name=name.text,
            source=manifest.name,
            blob=manifest.blob,
            size_bytes=manifest.total_bytes,
            blobs=_blobs(manifest),
            plan=(*steps, PlanStep(action="write", path=self._layout.manifest(name), size_bytes=size)),
        )
        return value, name, document

    # -- mv

    async def move(
        self,
        source: str,
        destination: str,
        *,
        order: int = 0,
        notes: Notes[Moved] | None = None,
        stopped: Stop = never,
        earlier: Moved | None = None,
    ) -> Moved:
        """The new name is there before the old one goes: readers find at least one of them at every moment."""
        key = ("move", source, destination)
        if (done := await self._changes.made_lasting(key, self.moved)) is not None:
            return done
        earlier = earlier or cast("Moved | None", self._changes.unsettled(key))
        old, new = ModelName.parse(source), ModelName.parse(destination)
        standing = self._exact(old) if self._half_moved(earlier) else self._movable(old, new)
        # By the spelling that the file has: that is the lock which other tools take for it.
        async with self._changes.turn(order, stopped, standing.name, new):
            half = self._half_moved(earlier)
            entry = self._exact(old) if half else self._movable(old, new)
            manifest = entry.usable()
            value = Moved(name=new.text, source=manifest.name, blob=manifest.blob, size_bytes=manifest.total_bytes)
            with anyio.CancelScope(shield=True), self._changes.remembering(key, value, self._begun):
                if notes is not None:
                    await notes.about_to_publish(value)
                if not half:
                    await self._changes.publish(new, entry.document() | {"name": new.text})
                # ---- The new name is there. The old one goes, whatever it takes. ----
                await self._changes.withdraw(entry.name)
                self._uses.moved(entry.name.text, new.text)
                self._uses.forget(entry.name.text)
                if notes is not None:
                    await notes.published(value)
                await self._changes.remove_trees(entry.name)
        return value

    def moved(self, value: Moved) -> bool:
        """Whether only the new name stands for these bytes."""
        there, left = self._standing(value.name), self._standing(value.source)
        return there is not None and there.blob == value.blob and (left is None or left.blob != value.blob)

    def _begun(self, value: Moved) -> bool:
        return self._half_moved(value) or self.moved(value)

    def _half_moved(self, earlier: Moved | None) -> bool:
        """Whether the new name is there already, and the old one still."""
        if earlier is None:
            return False
        there, left = self._standing(earlier.name), self._standing(earlier.source)
        return there is not None and left is not None and _blobs(there) == _blobs(left)

    def _movable(self, old: ModelName, new: ModelName) -> Entry:
        entry = self._exact(old)
        if new.key in (old.key, entry.name.key):
            raise _onto_itself(entry.name, new, "moved")
        self._check_vacant(new)
        entry.usable()
        self._holds.check_free(entry.name, "moved")
        return entry

    # -- rm

    async def remove(
        self,
        name: str,
        *,
        force: bool = False,
        order: int = 0,
        notes: Notes[Removed] | None = None,
        stopped: Stop = never,
    ) -> Removed:
        """The manifest goes, the blobs stay. A damaged manifest can be removed too."""
        key = ("remove", name)
        if (done := await self._changes.made_lasting(key, self.removed)) is not None:
            return done
        wanted = ModelName.parse(name)
        standing = self._removable(wanted, force)
        # By the spelling that the file has: that is the lock which other tools take for it.
        async with self._changes.turn(order, stopped, standing.name):
            entry = self._removable(wanted, force)
            manifest = entry.manifest
            value = Removed(
                name=entry.name.text,
                blob=None if manifest is None else manifest.blob,
                size_bytes=0 if manifest is None else manifest.total_bytes,
            )
            with anyio.CancelScope(shield=True), self._changes.remembering(key, value, self.removed):
                if notes is not None:
                    await notes.about_to_publish(value)
                await self._changes.withdraw(entry.name)
                self._uses.forget(entry.name.text)
                if notes is not None:
                    await notes.published(value)
                await self._changes.remove_trees(entry.name)
        return value

    def removed(self, value: Removed) -> bool:
        """Whether the name no longer stands for what was removed."""
        entry = self._index.entry(ModelName.parse(value.name))
        return entry is None or (entry.manifest is not None and entry.manifest.blob != value.blob)

    def _removable(self, name: ModelName, force: bool) -> Entry:
        entry = self._exact(name)
        if isinstance(entry.fault, Unsupported):
            raise entry.fault
        if not force:
            self._holds.check_free(entry.name, "removed")
        return entry

    # -- the steps that all of them take

    def _exact(self, name: ModelName) -> Entry:
        """The model of this very name: what changes a name does not guess at a tag."""
        entry = self._index.entry(name)
        if entry is not None:
            return entry
        tagged = name.with_default_tag
        if tagged is not None and (found := self._index.entry(tagged)) is not None:
            raise NotFound(
                f"there is no model named '{name.text}', only '{found.name.text}'",
                hint=f"say '{found.name.text}' if that is meant",
                details={"name": name.text, "close": [found.name.text]},
            )
        self._index.find(name.text)
        raise NotFound(f"there is no model named '{name.text}'", details={"name": name.text})

    def _check_vacant(self, name: ModelName) -> None:
        standing = self._index.entry(name)
        if standing is None:
            return
        if standing.name.text == name.text:
            raise AlreadyExists(
                f"there is already a model named '{name.text}'",
                hint="choose another name, or remove that model first",
                details={"name": name.text},
            )
        raise AlreadyExists(
            f"'{name.text}' is another spelling of '{standing.name.text}', which is already there",
            hint="choose a name that differs in more than case",
            details={"name": name.text, "existing": standing.name.text},
        )

    def _standing(self, text: str) -> Manifest | None:
        try:
            entry = self._index.entry(ModelName.parse(text))
        except WireError:
            return None
        return None if entry is None else entry.manifest


def _with_bytes(entry: Entry, done: str) -> Manifest:
    manifest, reason = entry.usable(), entry.missing()
    if reason is None:
        return manifest
    raise Corrupt(
        f"'{manifest.name}' has no bytes and cannot be {done}: {reason}",
        hint="add or pull it again first",
        details={"name": manifest.name, "blob": manifest.blob, "reason": reason},
    )


def _blobs(manifest: Manifest) -> tuple[str, ...]:
    """In the manifest's order."""
    return tuple(file.blob for file in manifest.files) or (manifest.blob,)


def _digest_of(path: str) -> str:
    return "sha256:" + os.path.basename(os.path.dirname(path))


def _onto_itself(name: ModelName, other: ModelName, done: str) -> AlreadyExists:
    spelled = "itself" if name.text == other.text else f"'{other.text}', which is the same name"
    return AlreadyExists(
        f"'{name.text}' cannot be {done} onto {spelled}",
        hint="choose a name that differs in more than case",
        details={"name": other.text, "existing": name.text},
    )
