"""Requests that are about models and leases of them."""

from __future__ import annotations

from typing import Final

import msgspec

from modelwire import limits
from modelwire.fields import Context, Count, HeaderKeys, Megabytes, SignatureText, SignersText, Token
from modelwire.requests.request import Request, Write
from modelwire.vocabulary import CACHE_TYPE_DEFAULT, CacheType

UPDATES_LISTED: Final = 100
"""Outcomes in a list whose length the client leaves open."""


class ModelList(Request, tag="model.list", frozen=True, kw_only=True):
    """`after` is the `next` of the page before, with the same filter and order.

    `filter` is a list of conditions that all have to hold: `size>1GB,format=gguf`. `sort` is a key, with `-` before it
    for the other direction. `fits` lists only models whose requirements the machine of the daemon meets.
    """

    after: str | None = None
    limit: Count | None = None
    filter: str | None = None
    sort: str | None = None
    fits: bool = False


class ModelShow(Request, tag="model.show", frozen=True, kw_only=True):
    """`keys` are those of the header whose values are requested, or patterns with `*`; `tensors` requests the list of
    its tensors. The estimate of the video memory is for a `context` of so many tokens, by default all that the model
    was made for, and a cache of this type, as llama.cpp names them. With `provenance` the history has up to 10,000
    outcomes instead of the newest 100."""

    name: str
    keys: HeaderKeys = ()
    tensors: bool = False
    provenance: bool = False
    context: Context | None = None
    cache_type: CacheType = CACHE_TYPE_DEFAULT


class ModelFit(Request, tag="model.fit", frozen=True, kw_only=True):
    """Whether this machine has what a model needs. `vram_mb` and `ram_mb` are assumed instead of what it has, in MB of
    1024 x 1024 bytes; 0 assumes that there is none."""

    name: str
    vram_mb: Megabytes | None = None
    ram_mb: Megabytes | None = None


class ModelUpdates(Request, tag="model.updates", frozen=True, kw_only=True):
    """The update commands of this machine, the newest first."""

    limit: Count = UPDATES_LISTED


class ModelResolve(Request, tag="model.resolve", frozen=True, kw_only=True):
    """`file` is one of the files of a model of several, by its path in the model."""

    name: str
    file: str | None = None


class LeaseAcquire(Request, tag="lease.acquire", frozen=True, kw_only=True):
    """Holds a model while a program uses it: neither its bytes nor its name are removed.

    The lease ends with the connection. One that is `detached` outlives the connection, and the daemon, until `ttl_s`
    seconds have passed or somebody releases it. `purpose` is for people.
    """

    name: str
    purpose: str = ""
    detached: bool = False
    ttl_s: float = limits.LEASE_SECONDS


class LeaseRelease(Request, tag="lease.release", frozen=True, kw_only=True):
    lease: str


class ModelCopy(Write, tag="model.copy", frozen=True, kw_only=True):
    """A second name for the same bytes. With `dry_run` only the plan. A model of a site is copied into the store; with
    `link` its files get a second name there instead."""

    source: str
    destination: str
    dry_run: bool = False
    link: bool = False


class ModelMove(Write, tag="model.move", frozen=True, kw_only=True):
    """Another name instead of the present one; at every moment one of the two resolves."""

    source: str
    destination: str


class ModelRemove(Write, tag="model.remove", frozen=True, kw_only=True):
    """Removes the name, not the bytes. `force` also when a client holds the model. With `now` the bytes that no other
    model needs go too, without a grace period."""

    name: str
    force: bool = False
    now: bool = False


class ModelPin(Write, tag="model.pin", frozen=True, kw_only=True):
    """Keeps a model for good: it is removed only by force, and never to make room."""

    name: str


class ModelUnpin(Write, tag="model.unpin", frozen=True, kw_only=True):
    name: str


class ModelVerify(Write, tag="model.verify", frozen=True, kw_only=True):
    """Hashes the bytes of these models, or of all. `quick` compares them with the checksums of their blocks, in a fifth
    of the time, and hashes only what differs or has none."""

    names: tuple[str, ...] = ()
    all: bool = False
    quick: bool = False


class ModelVerifySignature(Write, tag="model.verify_signature", frozen=True, kw_only=True):
    """Verifies that a trusted signer signed the files of a model. `signature` is the content of the file that holds it.

    Trusted are the holder of the public `key`, or those whose certificates lead to one of the `roots`: one of the two,
    in PEM. They and the signature are kept until the job ends, and no network is used.
    """

    name: str
    signature: SignatureText
    key: SignersText | None = None
    roots: SignersText | None = None


class ModelRepair(Write, tag="model.repair", frozen=True, kw_only=True):
    """Brings back the bytes of these models, or of all, that are damaged or missing: first looks at them as a quick
    verification does, then takes the blocks that are still good from the quarantine, and the others from where they
    were pulled from.

    `from` is the absolute path of a file or directory of this machine, whose blocks are taken first. `transfer` is as
    for an add, with that path.
    """

    names: tuple[str, ...] = ()
    all: bool = False
    from_: str | None = msgspec.field(default=None, name="from")
    transfer: Token | None = None
