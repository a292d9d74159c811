"""Who may change what a name stands for: the user who named the model, and users with the role admin.

The manifest has the owner. So a catalogue that is lost gives no model away, and the publication of a model and of its
owner is one write.
"""

from __future__ import annotations

from typing import Final, Literal

from modeld.store.catalog.history import Requester
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.index import Index
from modeld.store.manifests.registrations import Registration
from modeld.store.names import ModelName
from modelwire.errors import PermissionDenied

Change = Literal["moved", "removed", "replaced", "pinned", "unpinned", "given an id"]

_SHARED: Final = "shared_names = true in [access] of the daemon's configuration lets every writer change every model."


def check_owner(entry: Entry, requester: Requester, change: Change) -> None:
    """Raises PermissionDenied when the model belongs to another user, and the requester may not change it."""
    if not requester.may_change(entry.owner):
        raise not_owner(entry, requester, change)


def not_owner(entry: Entry, requester: Requester, change: Change) -> PermissionDenied:
    name, owner = entry.name.text, entry.owner
    belongs = f"it belongs to uid {owner}" if owner is not None else "its manifest does not say who owns it"
    whom = "a user with the role admin" if owner is None else f"uid {owner}, or a user with the role admin,"
    return PermissionDenied(
        f"'{name}' cannot be {change} by uid {requester.peer}: {belongs}",
        hint=f"Ask {whom} to do it{', or use another name' if change == 'replaced' else ''}. {_SHARED}",
        details={"name": name, "owner": owner, "uid": requester.peer},
    )


def check_registrant(registration: Registration, requester: Requester, change: Change) -> None:
    """As `check_owner`, for a model that another user has registered."""
    if requester.may_change(registration.owner_uid):
        return
    name, owner = registration.name, registration.owner_uid
    belongs = f"it is registered, and belongs to uid {owner}" if owner is not None else "who registered it is not known"
    raise PermissionDenied(
        f"'{name}' cannot be {change} by uid {requester.peer}: {belongs}",
        hint=f"Ask uid {owner}, or a user with the role admin, to do it, or use another name. {_SHARED}",
        details={"name": name, "owner": owner, "uid": requester.peer},
    )


def check_hides_no_other(index: Index, name: ModelName, requester: Requester) -> None:
    """For a new name. Raises PermissionDenied when it would be found in place of another user's model: `x` stands for
    `x:latest` until there is an `x`. Blocks."""
    tagged = name.with_default_tag
    if requester.all_models or requester.peer is None or tagged is None:
        return
    hidden = index.entry(tagged)
    if hidden is not None and not requester.may_change(hidden.owner):
        owner = "another user" if hidden.owner is None else f"uid {hidden.owner}"
        raise PermissionDenied(
            f"'{name.text}' cannot be the name of a new model: it stands for '{hidden.name.text}' of {owner}",
            hint=f"Choose another name or another tag. {_SHARED}",
            details={"name": name.text, "existing": hidden.name.text, "owner": hidden.owner, "uid": requester.peer},
        )
