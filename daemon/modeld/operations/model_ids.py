"""Ids of models: the texts by which a model is known beside its name, in requests that mean a model that is here.

Such a text becomes the name of the model before the operation runs. So the operation, its job, the ledger and the
answer have the name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

import anyio.to_thread
import msgspec

from modeld.operations.services import Services
from modeld.sources.local import LocalReference
from modeld.store import ModelName, Requester
from modeld.store.manifests.entries import Entry
from modeld.store.names import LONGEST_ID, is_id
from modeld.store.publish.name_changes import Notes, PassedOn
from modeld.store.publish.owners import who_may
from modelwire.errors import AlreadyExists, InvalidName, InvalidRequest, PermissionDenied
from modelwire.requests import (
    LeaseAcquire,
    ModelAdd,
    ModelCopy,
    ModelFit,
    ModelMove,
    ModelPin,
    ModelProvision,
    ModelPull,
    ModelRemove,
    ModelRepair,
    ModelResolve,
    ModelShow,
    ModelUnpin,
    ModelVerify,
    ModelVerifySignature,
    Request,
)
from modelwire.values import Added

R = TypeVar("R", bound=Request)

NAMES: Final[Mapping[type[Request], str]] = {
    LeaseAcquire: "name",
    ModelCopy: "source",
    ModelFit: "name",
    ModelMove: "source",
    ModelPin: "name",
    ModelRemove: "name",
    ModelRepair: "names",
    ModelResolve: "name",
    ModelShow: "name",
    ModelUnpin: "name",
    ModelVerify: "names",
    ModelVerifySignature: "name",
}
"""The field with the names of models that are here."""

_CHANGED: Final = frozenset({ModelMove, ModelPin, ModelRemove, ModelUnpin})
"""Of these it matters which of two models of the same files is meant."""

_SHOWN: Final = 8
"""Names in an error: nobody reads more of them, and its details have all."""


async def with_names(services: Services, uid: int, request: R) -> R:
    """The request with the name of each model that it means by an id. Ids of the user come before those of others."""
    kind: type[Request] = type(request)
    if isinstance(request, ModelPull | ModelProvision):
        ref = await _reference(services, uid, request)
        return request if ref == request.ref else cast("R", msgspec.structs.replace(request, ref=ref))
    if (field := NAMES.get(kind)) is None:
        return request
    given: Any = getattr(request, field)
    one = partial(name_of, services, uid, changes=kind in _CHANGED)
    named: Any = await one(given) if isinstance(given, str) else tuple([await one(each) for each in given])
    return request if named == given else msgspec.structs.replace(request, **{field: named})


async def name_of(services: Services, uid: int, text: str, *, own: bool = False, changes: bool = False) -> str:
    """The text, or the name of the model that it is an id of; with `own`, of the user's models alone. `changes` is for
    a request that changes the model of that name."""
    try:
        ModelName.parse(text)
    except InvalidName as fault:
        found = await services.store.sites.with_id(text) if is_id(text) else []
        if own:
            found = _own(found, uid)
        if not found:
            model = "model of yours" if own else "model"
            fault.hint = f"No {model} is known by it as an id either. {fault.hint or ''}".strip()
            raise
        return _only(text, found, uid, changes=changes).name.text
    return text


async def _reference(services: Services, uid: int, request: ModelPull | ModelProvision) -> str:
    """What has a source of its own, or is a file that is there, means that. The files of other users than the daemon's
    own are theirs to open: a path of theirs is never an id. A path that is gone is an id of the user's models alone:
    else others would say which bytes stand in for a file."""
    texts = [request.ref]
    path = None
    try:
        reference = services.pulls.sources.read(request.ref, request.directory)
    except InvalidRequest:
        pass
    else:
        if not isinstance(reference, LocalReference) or request.transfer is not None or not services.is_own(uid):
            return request.ref
        path = reference.path
        texts.append(reference.text)
    for text in filter(is_id, texts):
        found = await services.store.sites.with_id(text)
        if path is not None:
            found = _own(found, uid)
        if found:
            there = path is not None and await anyio.to_thread.run_sync(os.path.lexists, path, abandon_on_cancel=True)
            return request.ref if there else _only(text, found, uid, changes=False).name.text
    return request.ref


def _own(found: Sequence[Entry], uid: int) -> list[Entry]:
    """Those of the user. The uids at a site may be those of another machine."""
    return [entry for entry in found if entry.owner == uid and entry.site is None]


def _only(id_: str, found: Sequence[Entry], uid: int, *, changes: bool) -> Entry:
    """The model that a user means by an id: any of those with the same files, unless it `changes`. Raises
    InvalidRequest when it is not clear which one."""
    meant = [entry for entry in found if entry.owner == uid] or found
    contents = {entry.manifest and entry.manifest.content for entry in meant}
    if len(meant) == 1 or (len(contents) == 1 and not changes):
        return meant[0]
    names = [entry.name.text for entry in meant]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    raise InvalidRequest(
        f"'{id_}' is the id of {len(names)} models: {', '.join(names[:_SHOWN])}{more}",
        hint="Give the name of the one that you mean.",
        details={"id": id_, "close": names},
    )


async def under_id(services: Services, uid: int, request: ModelAdd, id_: str) -> ModelAdd:
    """The request to add a model under an id, with the model's name: the id when it is a name; else that of the user's
    model with this id, or one made of the file's name."""
    if not is_id(id_):
        name = _name_for(id_)
        if request.name not in (None, name):
            raise InvalidRequest(
                f"$.name: '{id_}' is a valid name, so the model has that name, and no other beside it",
                hint=f"Leave the name out, or add the file as '{request.name}'.",
            )
        return msgspec.structs.replace(request, name=name)
    store = services.store
    await _check_no_other_has(services, await services.requester(uid), id_)
    if own := _own(await store.sites.here_with_id(id_), uid):
        return msgspec.structs.replace(request, name=_with_name(id_, _only(id_, own, uid, changes=True), request.name))
    if request.name is not None:
        return request
    usual = ModelName.suggest(request.path)
    taken = await store.index.in_thread(partial(store.index.entry, usual)) or store.registrations.of(usual)
    return msgspec.structs.replace(request, name=(usual if taken is None else usual.for_id(id_, uid)).text)


class NewId(PassedOn):
    """The notes of a job that gives an id to a model: in the publisher's turn no other job can give it any more."""

    def __init__(self, notes: Notes[Added], services: Services, requester: Requester, id_: str) -> None:
        super().__init__(notes)
        self._services = services
        self._requester = requester
        self._id = id_

    async def about_to_publish(self, value: Added, /) -> None:
        own = await _check_no_other_has(self._services, self._requester, self._id)
        if own and all(entry.name.text != value.name for entry in own):
            _with_name(self._id, own[0], value.name)
        await self._notes.about_to_publish(value)

    async def published(self, value: Added, /) -> None:
        await self._notes.published(value)


async def _check_no_other_has(services: Services, requester: Requester, id_: str) -> list[Entry]:
    """The requester's models with this id. Raises PermissionDenied when there is none, but one of another user: a
    second model with it would make it ambiguous for everybody else."""
    found = await services.store.sites.here_with_id(id_)
    own = [entry for entry in found if entry.owner == requester.peer]
    other = next((entry for entry in found if not requester.may_change(entry.owner)), None)
    if own or other is None:
        return own
    name, owner = other.name.text, other.owner
    belongs = f"belongs to uid {owner}" if owner is not None else "has a manifest that does not say who owns it"
    raise PermissionDenied(
        f"'{id_}' is the id of '{name}' already, which {belongs}",
        hint=f"Register the file under another id or under a name. Ask {who_may(owner)} to remove that model if it"
        " should not have the id.",
        details={"id": id_, "existing": name, "owner": owner, "uid": requester.peer},
    )


def _with_name(id_: str, entry: Entry, wanted: str | None) -> str:
    """The name of the user's model with this id. Raises AlreadyExists when another one is wanted."""
    name = entry.name.text
    if wanted not in (None, name):
        raise AlreadyExists(
            f"'{id_}' is the id of '{name}' already",
            hint=f"Leave the name out, rename that model (`modelctl mv {name} NAME`), or remove it first.",
            details={"id": id_, "name": wanted, "existing": name},
        )
    return name


def _name_for(id_: str) -> str:
    """Of an id that is a valid name. Raises InvalidRequest when it is no id."""
    try:
        return ModelName.parse(id_).text
    except InvalidName:
        raise InvalidRequest(
            f"$.known_as: it is no id: it is empty, has control characters, or more than {LONGEST_ID} bytes",
            hint="Give a text such as my-org/my-model, or a name.",
        ) from None
