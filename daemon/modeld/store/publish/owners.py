"""Who may change what a name stands for: the user who named the model, and users with the role admin.

The manifest has the owner. So a catalogue that is lost gives no model away, and the publication of a model and of its
owner is one write.
"""

from __future__ import annotations

from typing import Literal

from modeld.store.catalog.history import Requester
from modeld.store.manifests.entries import Entry
from modelwire.errors import PermissionDenied


def check_owner(entry: Entry, requester: Requester, change: Literal["moved", "removed", "replaced"]) -> None:
    """Raises PermissionDenied when the model belongs to another user, and the requester may not change it."""
    if not requester.may_change(entry.owner):
        raise not_owner(entry, requester, change)


def not_owner(entry: Entry, requester: Requester, change: Literal["moved", "removed", "replaced"]) -> PermissionDenied:
    name, owner = entry.name.text, entry.owner
    belongs = f"it belongs to uid {owner}" if owner is not None else "its manifest does not say who owns it"
    whom = "a user with the role admin" if owner is None else f"uid {owner}, or a user with the role admin,"
    return PermissionDenied(
        f"'{name}' cannot be {change} by uid {requester.peer}: {belongs}",
        hint=f"Ask {whom} to do it, or use another name. shared_names = true in [access] of the daemon's"
        " configuration lets every writer change every model.",
        details={"name": name, "owner": owner, "uid": requester.peer},
    )
