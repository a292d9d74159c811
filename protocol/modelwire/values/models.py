"""What operations on models answer with."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import field

from modelwire.values.facts import EstimatedVram, ModelFacts, TensorView
from modelwire.values.value import Value
from modelwire.vocabulary import ModelState


class ModelFile(Value, frozen=True, kw_only=True):
    """One file of a model of several files."""

    path: str
    blob: str
    size_bytes: int
    role: str | None = None


class Provenance(Value, frozen=True, kw_only=True):
    """The origin of the bytes, as the manifest records it."""

    registry: str = ""
    repo: str = ""
    revision: str = ""
    filename: str = ""


class Holder(Value, frozen=True, kw_only=True):
    """A lease of a model. `expires_at` is when a detached one ends; any other ends with its connection. `pid` is the
    process that connected; None when it is in another pid namespace."""

    lease: str
    uid: int
    since: str
    pid: int | None = None
    purpose: str | None = None
    expires_at: str | None = None


class ModelView(Value, frozen=True, kw_only=True):
    """One model: the facts of its manifest, and its state on this machine."""

    name: str
    format: str
    blob: str
    size_bytes: int
    state: ModelState
    path: str | None = None
    license: str | None = None
    source: Provenance | None = None
    produced_by: str | None = None
    produced_at: str | None = None
    owner: int | None = None
    """The user who named it, and may rename, replace and remove it as users with the role admin may; None when that is
    not known."""

    reason: str | None = None
    progress: float | None = None
    """Of a model that is downloading: the part of its bytes that is here, from 0 to 1. None while their number is not
    known."""

    site: str | None = None
    """The root that has it, when that is one which the daemon only reads."""

    files: tuple[ModelFile, ...] = ()
    manifest: dict[str, Any] | None = None
    facts: ModelFacts | None = None
    model: dict[str, Any] | None = None
    """The document that describes it: that of the manifest, or one made of the facts."""

    file_name: str | None = None
    node: dict[str, Any] | None = None
    """Where it stands on this machine, in one vocabulary; `catalogue_state` says it in the other."""

    catalogue_state: str | None = None
    estimated_vram_mb: EstimatedVram | None = None
    header: dict[str, Any] | None = None
    """The values of the keys that were requested. Of a long value that only a pattern matches, its length: `{"items":
    count}` or `{"characters": null}`."""

    tensors: tuple[TensorView, ...] = ()
    verified_at: str | None = None
    used_at: str | None = None
    pinned: bool = False
    ids: tuple[str, ...] = ()
    """The texts by which it is known beside its name."""

    holders: tuple[Holder, ...] = ()
    history: tuple[Provenanced, ...] = ()


class Offered(Value, omit_defaults=False, frozen=True, kw_only=True):
    """Files are handed over: how many the transfer has by now."""

    transfer: str
    files: int


class Added(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The outcome of adding a model. `warning` is what its name promises and its bytes are not."""

    name: str
    blob: str
    size_bytes: int
    format: str
    path: str
    reused: bool = False
    job: str | None = None
    files: tuple[ModelFile, ...] = ()
    warning: str | None = None


class Pulled(Added, omit_defaults=False, frozen=True, kw_only=True):
    """The outcome of a pull.

    `source` is the reference without secrets, `revision` what it meant at that moment. `current`: the name stood for
    this already. `served` is how many bytes each source gave. `note` says how what the reference left open was decided.
    """

    source: str = ""
    revision: str | None = None
    current: bool = False
    note: str | None = None
    served: dict[str, int] = field(default_factory=dict)


class Provisioned(Value, omit_defaults=False, frozen=True, kw_only=True):
    """What a reference names is here. `id` is the reference, canonical; `local_path` is in the store, and stays
    verified when the original changes. `digest` is that of the bytes, whatever was expected."""

    id: str
    local_path: str
    digest: str
    outcome: Literal["match", "mismatch", "unchecked"]
    name: str
    warning: str | None = None
    job: str | None = None


class Resolved(Value, frozen=True, kw_only=True):
    """A name as a path: absolute, readable without the daemon."""

    name: str
    path: str
    blob: str
    state: ModelState
    site: str | None = None


class Pinned(Value, omit_defaults=False, frozen=True, kw_only=True):
    """Whether the model is pinned now. `changed`: it was not so before."""

    name: str
    blob: str
    pinned: bool
    changed: bool


class Leased(Value, omit_defaults=False, frozen=True, kw_only=True):
    """A model that is held: its path, as `Resolved` has it, and the lease that keeps it there."""

    lease: str
    name: str
    path: str
    blob: str
    state: ModelState
    expires_at: str | None = None


class Registered(Value, omit_defaults=False, frozen=True, kw_only=True):
    """`changed`: it was not registered before."""

    name: str
    model_id: str
    changed: bool


class Released(Value, frozen=True, kw_only=True):
    lease: str


class Provenanced(Value, frozen=True, kw_only=True):
    """One verification outcome, kept for good: what was checked, when, for whom, against what, by which version."""

    time: str
    blob: str
    outcome: str
    expected: str | None = None
    actual: str | None = None
    peer: int | None = None
    source: str | None = None
    tool: str | None = None
    job: str | None = None
    file: str | None = None
    served: dict[str, int] | None = None
    """Of bytes that arrived: which source gave how many of them."""

    details: dict[str, str | bool] | None = None
    """What else an outcome of its kind says."""


class PlanStep(Value, frozen=True, kw_only=True):
    """One step that an operation takes, or would take."""

    action: str
    path: str
    size_bytes: int = 0
    blob: str | None = None


class Copied(Value, omit_defaults=False, frozen=True, kw_only=True):
    """A model under a second name. No blob byte is copied."""

    name: str
    source: str
    blob: str
    size_bytes: int
    blobs: tuple[str, ...] = ()
    dry_run: bool = False
    plan: tuple[PlanStep, ...] = ()
    job: str | None = None


class Moved(Value, omit_defaults=False, frozen=True, kw_only=True):
    name: str
    source: str
    blob: str
    size_bytes: int
    job: str | None = None


class Removed(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The manifest is gone; its blobs stay until a sweep finds that nothing holds them.

    `blobs` are those that no other model names, and `frees_bytes` what they take. The daemon sweeps them at `frees_at`,
    None when it does not sweep by itself. `freed_bytes` were given back at once, on request.
    """

    name: str
    blob: str | None = None
    size_bytes: int = 0
    blobs: tuple[str, ...] = ()
    frees_bytes: int = 0
    frees_at: str | None = None
    freed_bytes: int = 0
    job: str | None = None


class Verified(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The outcome for one model. `actual` is the first digest that differs, or the expected one; null when no byte was
    hashed.

    `by` says what the outcome rests on: `sha256` that these are the bytes which the digest names, `checksums` that they
    have not changed since the checksums of their blocks were taken: no bit has rotted, whoever wrote them.
    """

    name: str
    ok: bool
    expected: str
    actual: str | None
    size_bytes: int = 0
    files: int = 1
    reason: str | None = None
    quarantine_path: str | None = None
    by: Literal["sha256", "checksums"] = "sha256"


class Verification(Value, omit_defaults=False, frozen=True, kw_only=True):
    """`models` has the failed ones first, and of very many good ones not all: `checked` is their number."""

    models: tuple[Verified, ...] = ()
    ok: bool = True
    checked: int = 0
    failed: int = 0
    size_bytes: int = 0
    quick: bool = False
    job: str | None = None


class SignatureVerified(Value, omit_defaults=False, frozen=True, kw_only=True):
    """A trusted signer signed the files of a model as they are here; that it is otherwise is an error.

    `signature` is the digest of the signature's own file, `signer` the fingerprint of the key, or of the certificate of
    the `subject`. `read`: the signer used a hash for which the bytes were read now; else the signed digests are those
    that the bytes had when they were last hashed. `not_signed` are files for which the signature does not speak.
    """

    name: str
    blob: str
    signature: str
    by: Literal["key", "certificate"]
    signer: str
    subject: str | None = None
    read: bool
    verified: tuple[str, ...] = ()
    not_signed: tuple[str, ...] = ()
    job: str | None = None


class RepairedBlob(Value, omit_defaults=False, frozen=True, kw_only=True):
    """One blob that was damaged or missing, and is good again.

    `damaged_blocks` of its `blocks` of 16 MiB were not found good in what was kept of it. Of its bytes `kept_bytes`
    come from what was kept, `copied_bytes` from the path that the request named, `fetched_bytes` from the sources that
    `served` lists. All are 0 when another job has brought the bytes meanwhile.
    """

    blob: str
    models: tuple[str, ...]
    size_bytes: int
    blocks: int
    damaged_blocks: int
    kept_bytes: int = 0
    copied_bytes: int = 0
    fetched_bytes: int = 0
    served: dict[str, int] = field(default_factory=dict)


class Repaired(Value, omit_defaults=False, frozen=True, kw_only=True):
    """`repaired` lists the blobs that were damaged, and is empty when all were good; `checked` counts the models. What
    cannot be repaired is an error, whose details list `lost` and `repaired`."""

    repaired: tuple[RepairedBlob, ...] = ()
    checked: int = 0
    size_bytes: int = 0
    job: str | None = None


class ModelList(Value, omit_defaults=False, frozen=True, kw_only=True):
    models: tuple[ModelView, ...] = ()
    next: str | None = None
    damaged: tuple[str, ...] = ()
