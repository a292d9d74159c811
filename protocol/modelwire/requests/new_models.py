"""Requests that bring in models."""

from __future__ import annotations

from typing import Any

from modelwire.fields import Rate, Reason, SignatureText, Token
from modelwire.requests.request import Request, Write


class ModelAdd(Write, tag="model.add", frozen=True, kw_only=True):
    """Adds a local file, a directory, or a set of GGUF shards (by any part) to the store.

    The path is absolute: the daemon has another working directory. `move` removes the source once the model is
    there, `link` lets the store and the source share their bytes. `force_format` stores also a file that is certainly
    no model: an error page, a pointer, a file that is cut off; `strict_format` only what is read and is what its name
    promises. With `transfer` the files are those that were offered under that word, and the daemon opens no path: it
    only says where they are from. `signature` is the content of the file with the model's signature, where the daemon
    requires one; it is kept until the job ends.

    `known_as` is an id by which the model is known from then on: its name when it is a valid one, else a text that
    means the model wherever a request names one that is here. The file is read, also when bytes of its digest are here.
    """

    path: str
    name: str | None = None
    sha256: str | None = None
    replace: bool = False
    license: str | None = None
    move: bool = False
    link: bool = False
    force_format: bool = False
    strict_format: bool = False
    transfer: Token | None = None
    known_as: str | None = None
    signature: SignatureText | None = None


class ModelPull(Write, tag="model.pull", frozen=True, kw_only=True):
    """Fetches what a reference names into the store: from the network, from this machine, or from the store itself.

    `directory` is where relative paths start. `sha256` is of a model of one file, and stronger than what its source
    says; `include` and `exclude` are globs over the paths of a model of many. `offline` opens no connection for this
    one. `max_rate` is in bytes a second. `force_format` and `strict_format` are as for an add. `credentials` is a token
    of the hub, or `user:password` elsewhere: for the host of the reference alone, and kept in memory alone. `transfer`
    is as for an add, with the path of a file or directory of this machine; with `hash_file` such a file is read unless
    it is known to be unchanged, even when the store has bytes of the digest `sha256`. `signature` is as for an add.
    """

    ref: str
    name: str | None = None
    sha256: str | None = None
    replace: bool = False
    license: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    offline: bool = False
    max_rate: Rate | None = None
    directory: str | None = None
    force_format: bool = False
    strict_format: bool = False
    credentials: str | None = None
    hash_file: bool = False
    transfer: Token | None = None
    signature: SignatureText | None = None


class ModelProvision(Write, tag="model.provision", frozen=True, kw_only=True):
    """Ensures that what a reference names is in the store, verified, and records the outcome.

    The reference is one of a pull. Bytes of another digest than `sha256` are refused when it is `strict`, else stored
    with a warning. Without a `name` the model has one that belongs to the reference alone, and follows it.
    """

    ref: str
    sha256: str | None = None
    strict: bool = True
    name: str | None = None
    offline: bool = False
    max_rate: Rate | None = None
    directory: str | None = None
    transfer: Token | None = None


class ModelUpdate(Write, tag="model.update", frozen=True, kw_only=True):
    """Brings a version of a model to this machine, when the command is for it and the model fits it, and gives it the
    name that its users use. The command has its own priority, and goes on when its client leaves."""

    command: dict[str, Any]
    max_rate: Rate | None = None


class RefuseLoad(Request, tag="model.refuse_load", frozen=True, kw_only=True):
    """An engine's answer to `model.load_requested` when it cannot load the model. A lease is the other answer."""

    command_id: str
    reason: Reason


Fetch = ModelProvision | ModelPull | ModelUpdate
"""What may download, with a rate of its own."""


class ModelRegister(Request, tag="model.register", frozen=True, kw_only=True):
    """Makes a model known before its bytes are here. `manifest` is the document that describes it, the block `model` of
    manifests; the name is its `model_id` unless another is given."""

    manifest: dict[str, Any]
    name: str | None = None
