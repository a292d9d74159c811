"""Registers a model whose bytes are not here yet, and ends registrations.

The registration belongs to the user who made it, and a publication of the name by another user is refused as that of
another user's model is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import anyio
import msgspec

from modeld.store.catalog.history import THE_DAEMON, History, Requester
from modeld.store.disk.locks import StoreLock
from modeld.store.manifests.registrations import Registration, Registrations
from modeld.store.names import ModelName
from modeld.store.publish.name_changes import NameChanges, Notes, announced
from modeld.store.publish.name_locks import Stop, never
from modeld.store.publish.owners import check_hides_no_other, check_registrant
from modelwire.errors import AlreadyExists, InvalidName, QuotaExceeded
from modelwire.knowledge.document import ModelDocument, document_of
from modelwire.values import Registered, Removed

MOST: Final = 1000
"""In one store: with documents of the longest kind they take 22 MB of memory."""

MOST_OF_ONE: Final = 250
"""Of one user, so that four users must act together to keep others from registering."""


class Registering:
    """For the event loop."""

    def __init__(self, changes: NameChanges, registrations: Registrations, lock: StoreLock, history: History) -> None:
        self._changes = changes
        self._history = history
        self._registrations = registrations
        self._lock = lock

    async def register(
        self,
        name: ModelName,
        document: Mapping[str, Any],
        requester: Requester = THE_DAEMON,
        check: Callable[[], None] = lambda: None,
    ) -> Registered:
        """Durable on return. The same again changes nothing. `check` raises when the name must not be registered."""
        wanted = Registration(name=name.text, written=_kept(document), owner_uid=requester.peer)
        async with self._changes.turn(0, name):
            known = self._registrations.of(name)
            if known is not None:
                return _again(known, wanted)
            await self._changes.in_thread(partial(self._check_vacant, name, requester))
            self._check_number(requester)
            check()
            with anyio.CancelScope(shield=True):
                await self._history.forget_name(name)  # of an earlier model, whose removal was killed before it did so
                await self._changes.in_thread(partial(self._registrations.add, wanted))
        return _registered(wanted, changed=True)

    def _check_vacant(self, name: ModelName, requester: Requester) -> None:
        self._lock.check()
        standing = self._changes.index.entry(name)
        if standing is not None:
            raise AlreadyExists(
                f"there is already a model named '{standing.name.text}'",
                hint="Register it under another name, or remove that model first.",
                details={"name": name.text, "existing": standing.name.text},
            )
        check_hides_no_other(self._changes.index, self._registrations, name, requester)

    def _check_number(self, requester: Requester) -> None:
        known = self._registrations.all()
        own = sum(each.owner_uid == requester.peer for each in known)
        if len(known) < MOST and own < MOST_OF_ONE:
            return
        whose, most = (f"uid {requester.peer}", MOST_OF_ONE) if own >= MOST_OF_ONE else ("this store", MOST)
        raise QuotaExceeded(
            f"{whose} has {most} registered models whose bytes are not here, the most that there may be",
            hint="`modelctl list --filter state=available` lists them: pull some, or remove them with `modelctl rm`.",
            details={"registered": len(known), "limit": most},
        )

    async def remove(
        self,
        name: ModelName,
        *,
        requester: Requester,
        order: int,
        notes: Notes[Removed] | None,
        stopped: Stop = never,
    ) -> Removed | None:
        """Ends a registration; None when the name has a manifest, or is not registered."""
        if self._registrations.of(name) is None:
            return None
        async with self._changes.turn(order, name, stopped=stopped, notes=notes):
            known = self._registrations.of(name)
            if known is None:
                return None
            if await self._changes.in_thread(partial(self._changes.index.entry, name)) is not None:
                # Another tool's manifest hides it. With that gone it would come back.
                if requester.may_change(known.owner_uid):
                    await self._changes.in_thread(partial(self._registrations.end, name))
                return None
            check_registrant(known, requester, "removed")
            await self._changes.in_thread(self._lock.check)
            value = Removed(name=known.name)
            with anyio.CancelScope(shield=True):
                async with announced(notes, value):
                    await self._changes.in_thread(partial(self._registrations.end, name))
        return value


def name_to_register(document: ModelDocument, name: str | None) -> ModelName:
    """By default the model's id."""
    if name is not None:
        return ModelName.parse(name)
    try:
        return ModelName.parse(document.model_id)
    except InvalidName as fault:
        fault.hint = (
            f"Give it a name beside its id: `modelctl register MANIFEST --name NAME`. {fault.hint or ''}".strip()
        )
        raise


def _kept(given: Mapping[str, Any]) -> msgspec.Raw:
    """In the words in which documents are written, with the fields that modeld does not know."""
    document = document_of(given)
    others = {key: value for key, value in given.items() if key not in ModelDocument.__struct_fields__}
    return msgspec.Raw(msgspec.json.encode(others | msgspec.to_builtins(document)))


def _again(known: Registration, wanted: Registration) -> Registered:
    if known.name == wanted.name and known.model == wanted.model:
        return _registered(known, changed=False)
    raise AlreadyExists(
        f"'{known.name}' is registered already, with another document",
        hint=f"Remove that registration first: `modelctl rm {known.name}`.",
        details={"name": wanted.name, "existing": known.name},
    )


def _registered(registration: Registration, *, changed: bool) -> Registered:
    document = registration.document
    return Registered(name=registration.name, model_id=document.model_id, changed=changed)
