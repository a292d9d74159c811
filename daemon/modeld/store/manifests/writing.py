"""Writes manifests: composes the document, keeps the fields of other tools, and gives the file its name.

The manifest is the last write of a publication: once it has its name, the model exists.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.manifests.manifests import MAX_MANIFEST, SCHEMA_VERSION, File
from modeld.store.names import MOST_IDS, ModelName, ids_in
from modelwire.errors import AlreadyExists, QuotaExceeded, Unsupported
from modelwire.version import __version__

PRODUCER: Final = f"modeld/{__version__}"

IDS: Final = "ids"
"""The field for what the model is known by beside its name."""

_ABOUT_THE_BYTES: Final = frozenset({"files", "model", IDS})
"""Optional fields that describe the content: they are dropped when the name gets other bytes."""

_FILE_BYTES: Final = 200
"""Of a manifest for one file, without its path."""


def compose(
    name: ModelName,
    *,
    digest: Digest,
    size: int,
    format: str,  # noqa: A002 - the field's name
    license: str | None,  # noqa: A002 - the field's name
    source: Mapping[str, str],
    files: Sequence[File] = (),
    owner: int | None = None,
    id_: str | None = None,
    now: datetime | None = None,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document to write. Fields of `before` that modeld does not know are kept, also those inside `source`. Without
    an `owner` the owner of `before` stays."""
    old: Mapping[str, Any] = {} if before is None else before
    old_source = old.get("source")
    kept_source = dict(old_source) if isinstance(old_source, Mapping) else {}
    known: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": name.text,
        "format": format,
        "blob": digest.text,
        "size_bytes": size,
        "license": license,
        "source": {**dict.fromkeys(("registry", "repo", "revision", "filename"), ""), **source},
        "produced_by": PRODUCER,
        "produced_at": (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if files:
        known["files"] = [
            {"path": file.path, "blob": file.blob, "size_bytes": file.size_bytes, "role": file.role} for file in files
        ]
    if owner is not None:
        known["owner_uid"] = owner
    # The reference is of the bytes that a pull wrote there.
    for field in (*known["source"], "reference"):
        kept_source.pop(field, None)
    known["source"].update(kept_source)
    same = old.get("blob") == digest.text and (old.get("files") or []) == known.get("files", [])
    stale = frozenset[str]() if same else _ABOUT_THE_BYTES
    known.update({key: value for key, value in old.items() if key not in known and key not in stale})
    block = known.get("model")
    if isinstance(block, dict):
        # What the block has from the manifest alone goes with it.
        license_ = {"license": license or ""} if block.get("license") == (old.get("license") or "") else {}
        made = {"created_at": known["produced_at"]} if block.get("created_at") == old.get("produced_at") else {}
        known["model"] = block | license_ | made
    return known if id_ is None else with_id(known, id_)


def with_id(document: Mapping[str, Any], id_: str) -> dict[str, Any]:
    """The manifest of a model that is known by this id too. What else another tool has in the list stays."""
    before = document.get(IDS)
    known = ids_in(before)
    if id_ in known:
        return dict(document)
    if len(known) >= MOST_IDS:
        raise QuotaExceeded(
            f"'{document['name']}' has {len(known)} ids, the most that a model may have",
            hint="Register the file under another name, which shares its bytes: add `--name NAME`.",
            details={"name": document["name"], "ids": len(known), "limit": MOST_IDS},
        )
    return dict(document) | {IDS: [*(before if isinstance(before, list) else ()), id_]}


def renamed(document: Mapping[str, Any], name: ModelName, *, copy: bool = False) -> dict[str, Any]:
    """The manifest under another name. An id that was no more than the name changes with it, and no copy has the ids of
    its source: an id stands for one model."""
    changed = dict(document) | {"name": name.text}
    if copy:
        changed.pop(IDS, None)
    block = document.get("model")
    if isinstance(block, dict) and (copy or block.get("model_id") == document.get("name")):
        title = {"name": name.text} if block.get("name") == document.get("name") else {}
        changed["model"] = block | {"model_id": name.text} | title
    return changed


def named_in(document: Mapping[str, Any]) -> set[Digest]:
    """The blobs of a document that `compose` made."""
    return {Digest.parse(text) for text in (document["blob"], *(file["blob"] for file in document.get("files") or ()))}


def encode(document: Mapping[str, Any], *, indent: int | None = 2) -> bytes:
    """Indented UTF-8 with a final newline."""
    separators = (",", ":") if indent is None else None
    encode_as = partial(json.dumps, document, indent=indent, separators=separators, allow_nan=False)
    try:
        return encode_as(ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # another tool's escaped half of a surrogate pair: keep it escaped
        return encode_as().encode() + b"\n"


def bytes_of_files(paths: Iterable[str]) -> int:
    """About how much of a manifest the files of these paths take."""
    return sum(len(json.dumps(path)) + _FILE_BYTES for path in paths)


def _readable(document: Mapping[str, Any]) -> bytes:
    """The manifest file; without spaces where they would make it longer than is read again."""
    data = encode(document)
    if len(data) > MAX_MANIFEST:
        data = encode(document, indent=None)
    if len(data) > MAX_MANIFEST:
        raise Unsupported(
            f"the manifest would have {len(data)} bytes, {MAX_MANIFEST} are allowed; nothing was changed",
            hint="Take out fields that another tool has added to it.",
        )
    return data


def write(layout: Layout, name: ModelName, document: Mapping[str, Any], *, replace: bool) -> None:
    """Publishes the manifest. `AlreadyExists` when the name is taken and `replace` is false; then nothing has changed.

    An error after the naming leaves the manifest there: the outcome is unknown to the caller, and the same request
    again succeeds.
    """
    path = layout.manifest(name)
    with durable.store_faults("write the manifest", path):
        staged = _stage(layout, _readable(document))
        try:
            if replace:
                durable.name_replacing(staged, path)
            elif not durable.name_without_replacing(staged, path):
                raise taken(name)
        except BaseException:
            with contextlib.suppress(OSError):
                durable.remove(staged)
            raise
    # ---- The model has its name: from here on nothing is undone. ----
    with durable.outcome_unknown(), durable.store_faults("write the manifest", path):
        durable.sync_directory(layout.manifests_dir)


def make_durable(layout: Layout, name: ModelName) -> bool:
    """Syncs a manifest that already is what a request wants: its writer may have died, or never syncs. Returns False
    when it does not exist any more."""
    path = layout.manifest(name)
    with durable.outcome_unknown(), durable.store_faults("make durable", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            durable.sync_file(descriptor)
        finally:
            durable.close(descriptor)
        durable.sync_directory(layout.manifests_dir)
    return True


def sync_names(layout: Layout) -> None:
    """Makes earlier changes of manifests durable, when that is unknown."""
    with durable.outcome_unknown(), durable.store_faults("sync", layout.manifests_dir):
        durable.sync_directory(layout.manifests_dir)


def taken(name: ModelName) -> AlreadyExists:
    return AlreadyExists(
        f"there is already a model named '{name.text}'",
        hint="Choose another name, or replace the model with `--replace`.",
        details={"name": name.text},
    )


def _stage(layout: Layout, data: bytes) -> str:
    staged = os.path.join(layout.staging, f"manifest-{secrets.token_hex(8)}.json")
    descriptor = durable.stage_file(staged, below=layout.root)
    try:
        try:
            durable.share_with_group_of(layout.manifests_dir, descriptor)
            os.fchmod(descriptor, _readers_mode(layout))
            durable.write_at(descriptor, memoryview(data), 0)
            durable.sync_file(descriptor)
        finally:
            durable.close(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            durable.remove(staged)
        raise
    return staged


def _readers_mode(layout: Layout) -> int:
    """In a store that a group shares, the group reads; else every user with access to the directories."""
    return 0o640 if os.stat(layout.manifests_dir).st_mode & stat.S_ISGID else 0o644
