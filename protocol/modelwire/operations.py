"""The table of operations: what each takes, what it answers, which right it needs, which capability announces it.

Both sides read it: the daemon refuses to start when an operation has no handler, the client decodes values by it, and
the schema is generated from it. An operation that is not here answers `unknown_operation`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from modelwire import requests, values
from modelwire.vocabulary import Role

Kind = Literal["connection", "read", "write", "control"]


class Operation(msgspec.Struct, frozen=True):
    """`read` is answered at once, `write` is admitted as a job, `control` is never queued but changes something."""

    name: str
    request: type[requests.Request]
    value: type[values.Value]
    kind: Kind
    role: Role
    capability: str


def _table(*rows: tuple[type[requests.Request], type[values.Value], Kind, Role, str]) -> dict[str, Operation]:
    made = {}
    for request, value, kind, role, capability in rows:
        name = str(request.__struct_config__.tag)
        made[name] = Operation(name, request, value, kind, role, capability)
    return made


OPERATIONS: dict[str, Operation] = _table(
    (requests.Hello, values.Welcome, "connection", "read", "core"),
    (requests.Cancel, values.Done, "connection", "read", "core"),
    (requests.FilesOffer, values.Offered, "connection", "write", "descriptors"),
    (requests.DaemonStatus, values.Status, "read", "read", "core"),
    (requests.DaemonDescribe, values.Description, "read", "read", "core"),
    (requests.DaemonDrain, values.Drained, "control", "admin", "core"),
    (requests.DaemonConfigure, values.Configured, "control", "admin", "configure"),
    (requests.ModelAdd, values.Added, "write", "write", "add"),
    (requests.ModelPull, values.Pulled, "write", "write", "pull"),
    (requests.ModelProvision, values.Provisioned, "write", "write", "provision"),
    (requests.ModelRegister, values.Registered, "control", "write", "register"),
    (requests.ModelUpdate, values.Updated, "write", "write", "update"),
    (requests.ModelUpdates, values.Updates, "read", "read", "update"),
    (requests.RefuseLoad, values.Done, "control", "write", "update"),
    (requests.ModelList, values.ModelList, "read", "read", "models"),
    (requests.ModelShow, values.ModelView, "read", "read", "models"),
    (requests.ModelFit, values.FitView, "read", "read", "fit"),
    (requests.ModelResolve, values.Resolved, "read", "read", "models"),
    (requests.LeaseAcquire, values.Leased, "control", "read", "leases"),
    (requests.LeaseRelease, values.Released, "control", "read", "leases"),
    (requests.ModelCopy, values.Copied, "write", "write", "names"),
    (requests.ModelMove, values.Moved, "write", "write", "names"),
    (requests.ModelRemove, values.Removed, "write", "write", "names"),
    (requests.ModelPin, values.Pinned, "write", "write", "pins"),
    (requests.ModelUnpin, values.Pinned, "write", "write", "pins"),
    (requests.ModelVerify, values.Verification, "write", "write", "verify"),
    (requests.ModelVerifySignature, values.SignatureVerified, "write", "write", "signatures"),
    (requests.ModelRepair, values.Repaired, "write", "write", "repair"),
    (requests.StoreUsage, values.Usage, "read", "read", "space"),
    (requests.StoreQuarantine, values.QuarantineList, "read", "read", "verify"),
    (requests.StoreSweep, values.Swept, "write", "admin", "space"),
    (requests.StoreScrub, values.Scrubbed, "write", "admin", "scrub"),
    (requests.StoreMove, values.Relocated, "write", "admin", "move"),
    (requests.JobList, values.JobList, "read", "read", "jobs"),
    (requests.JobShow, values.JobView, "read", "read", "jobs"),
    (requests.JobAttach, values.JobView, "read", "read", "jobs"),
    (requests.JobCancel, values.JobView, "control", "write", "jobs"),
    (requests.JobPause, values.JobView, "control", "write", "jobs"),
    (requests.JobResume, values.JobView, "control", "write", "jobs"),
    (requests.JobPrioritize, values.JobView, "control", "write", "jobs"),
    (requests.JobConfigure, values.Configured, "control", "write", "configure"),
    (requests.EventsSubscribe, values.EventsEnd, "read", "read", "events"),
)

BY_REQUEST: dict[type[requests.Request], Operation] = {row.request: row for row in OPERATIONS.values()}
CAPABILITIES: tuple[str, ...] = tuple(sorted({row.capability for row in OPERATIONS.values()}))


def request_union() -> object:
    """The union of all request types, for one decoder."""
    union: object = requests.Hello
    for row in OPERATIONS.values():
        union = union | row.request
    return union
