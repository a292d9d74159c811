"""Pins and unpins models: a pin is a field of the manifest."""

from __future__ import annotations

from functools import partial
from typing import Final, Unpack

from modeld.store.catalog.history import THE_DAEMON
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.manifests import Manifest
from modeld.store.names import ModelName
from modeld.store.publish.name_changes import NameChanges, Terms
from modeld.store.publish.owners import check_owner
from modeld.store.publish.planned_changes import Kind, Plan, PlannedChanges, nothing
from modelwire.errors import InUse
from modelwire.values import Pinned

FIELD: Final = "pinned"
"""Of the manifest."""


class Pinning:
    def __init__(self, name_changes: NameChanges, changes: PlannedChanges) -> None:
        self._name_changes = name_changes
        self._changes = changes
        self._pins = Kind[Pinned](self.stands)

    async def pin(self, name: str, *, pinned: bool = True, **terms: Unpack[Terms[Pinned]]) -> Pinned:
        """The pin is in the manifest: it is lost only with the model. It stays when the name gets other bytes or the
        model another name; a copy has none."""
        wanted, requester = ModelName.parse(name), terms.get("requester", THE_DAEMON)

        def plan() -> Plan[Pinned]:
            entry = self._changes.exact(wanted)
            check_owner(entry, requester, "pinned" if pinned else "unpinned")
            manifest, document = entry.usable(), entry.document()
            changed = _is_pinned(manifest) != pinned
            value = Pinned(name=entry.name.text, blob=manifest.blob, pinned=pinned, changed=changed)
            document.pop(FIELD, None)
            if pinned:
                document[FIELD] = True
            write = partial(self._name_changes.write, entry.name, document, replace=True)
            return Plan(value, (entry.name,), write if changed else nothing)

        return await self._changes.carry_out(self._pins, (name, str(pinned)), plan, **terms)

    def stands(self, value: Pinned) -> bool:
        """Whether the model is pinned, or not, as `value` says."""
        standing = self._changes.standing(value.name)
        return standing is not None and _is_pinned(standing) == value.pinned


def check_not_pinned(entry: Entry) -> None:
    """`InUse` when the model is pinned."""
    if _is_pinned(entry.manifest):
        raise InUse(
            f"'{entry.name.text}' cannot be removed: it is pinned",
            hint=f"Run `modelctl unpin {entry.name.text}` first. `--force` removes it nevertheless.",
            retryable=False,
            details={"name": entry.name.text, "pinned": True},
        )


def _is_pinned(manifest: Manifest | None) -> bool:
    return manifest is not None and manifest.pinned is True
