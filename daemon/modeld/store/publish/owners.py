"""Who may change what a name stands for: the user who named the model, and users with the role admin.

The manifest has the owner. So a catalogue that is lost gives no model away, and the publication of a model and of its
owner is one write.
"""

from __future__ import annotations

from typing import Final, Literal

from modeld.store.catalog.history import Requester
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.index import Index
from modeld.store.manifests.registrations import Registration, Registrations
from modeld.store.names import ModelName
from modelwire.errors import AlreadyExists, PermissionDenied, WireError

ChangeWord = Literal["moved", "removed", "replaced", "pinned", "unpinned", "given an id"]

OWNER: Final = "owner_uid"
"""The field of the manifest."""

_SHARED: Final = "shared_names = true in [access] of the daemon's configuration lets every writer change every model."


def check_owner(entry: Entry, requester: Requester, change: ChangeWord) -> None:
    """Raises PermissionDenied when the model belongs to another user, and the requester may not change it."""
    if not requester.may_change(entry.owner):
        raise not_owner(entry, requester, change)


def new_owner(requester: Requester, standing: Entry | None) -> int | None:
    """Of a name that gets other bytes; None when it keeps its owner. A user with limits who replaces another one's
    model owns what it has now: else the limits would end where names are shared."""
    if standing is None or standing.owner is None:
        return requester.peer
    quota = requester.quota
    return None if quota is None or quota.counts(standing.owner) else requester.peer


def who_may(owner: int | None) -> str:
    """Change a model of that owner, in words."""
    return "a user with the role admin" if owner is None else f"uid {owner}, or a user with the role admin,"


def not_owner(entry: Entry, requester: Requester, change: ChangeWord) -> PermissionDenied:
    name, owner = entry.name.text, entry.owner
    belongs = f"it belongs to uid {owner}" if owner is not None else "its manifest does not say who owns it"
    return PermissionDenied(
        f"'{name}' cannot be {change} by uid {requester.peer}: {belongs}",
        hint=f"Ask {who_may(owner)} to do it{', or use another name' if change == 'replaced' else ''}. {_SHARED}",
        details={"name": name, "owner": owner, "uid": requester.peer},
    )


def check_registrant(registration: Registration, requester: Requester, change: ChangeWord) -> None:
    """As `check_owner`, for a model that another user has registered."""
    if requester.may_change(registration.owner_uid):
        return
    name, owner = registration.name, registration.owner_uid
    belongs = f"it is registered, and belongs to uid {owner}" if owner is not None else "who registered it is not known"
    raise PermissionDenied(
        f"'{name}' cannot be {change} by uid {requester.peer}: {belongs}",
        hint=f"Ask {who_may(owner)} to do it, or use another name. {_SHARED}",
        details={"name": name, "owner": owner, "uid": requester.peer},
    )


def check_hides_no_other(index: Index, registrations: Registrations, name: ModelName, requester: Requester) -> None:
    """For a new name. Raises PermissionDenied when it would be found in place of another user's model, present or
    registered. `x` stands for `x:latest` until there is an `x`, and what is present comes before what is registered.
    Blocks."""
    tagged, bare = name.with_default_tag, name.without_default_tag
    if tagged is not None:
        if (hidden := index.entry(tagged)) is not None and not requester.may_change(hidden.owner):
            raise _would_hide(name, name.text, hidden.name.text, hidden.owner, requester)
        _check_registered(registrations.of(tagged), name, name.text, requester)
    elif bare is not None and index.entry(bare) is None:
        _check_registered(registrations.of(bare), name, bare.text, requester)


def _check_registered(found: Registration | None, name: ModelName, text: str, requester: Requester) -> None:
    if found is not None and not requester.may_change(found.owner_uid):
        raise _would_hide(name, text, found.name, found.owner_uid, requester)


def _would_hide(name: ModelName, text: str, hidden: str, owner: int | None, requester: Requester) -> PermissionDenied:
    of = "another user" if owner is None else f"uid {owner}"
    stands = "it" if text == name.text else f"'{text}', which would mean it,"
    return PermissionDenied(
        f"'{name.text}' cannot be the name of a new model: {stands} stands for '{hidden}' of {of}",
        hint=f"Choose another name or another tag. {_SHARED}",
        details={"name": name.text, "existing": hidden, "owner": owner, "uid": requester.peer},
    )


def refuses_name(fault: WireError, name: ModelName) -> bool:
    """Whether a publication failed because the name is another model's, or would hide one."""
    refused = fault.details.get("name")
    of_name = isinstance(refused, str) and refused.lower() == name.key
    return of_name and isinstance(fault, AlreadyExists | PermissionDenied)
