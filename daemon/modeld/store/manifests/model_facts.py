"""What a model says about itself: the facts of the files in which its weights are."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from modeld.inspect import configuration
from modeld.inspect.header import Unreadable
from modeld.inspect.inspection import inspect
from modeld.inspect.merging import MAX_INDEX, files_of_index, index_beside, merged
from modeld.inspect.on_demand import tensors_of, values_of
from modeld.platform import files
from modeld.store import parts
from modeld.store.catalog.facts import Facts
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.manifests.manifests import Manifest
from modelwire.errors import InvalidRequest, Unsupported
from modelwire.values import ModelFacts, TensorView

_NONE: Final[Mapping[Digest, Signature]] = {}
_NO_FACTS: Final[Mapping[Digest, ModelFacts]] = {}

MAX_TENSORS: Final = 40_000
"""Of one answer."""

MAX_BYTES: Final = 6 << 20
"""Of values and tensors in one answer, which has 8 MiB in all."""


def facts_of(
    manifest: Manifest,
    layout: Layout,
    facts: Facts | None = None,
    *,
    whole: bool,
    verified: Mapping[Digest, Signature] = _NONE,
    given: Mapping[Digest, ModelFacts] = _NO_FACTS,
) -> ModelFacts | None:
    """Blocking. Of a model that is `whole` the headers are read that are not `given` and that the catalogue does not
    know. They are remembered when the file was as it was `verified`, before and after. None when the bytes are of no
    known format, or are not known."""
    first, blobs = _files(manifest)
    wanted = _parts(first, blobs, layout)
    digests = {path: blobs[path] for path in wanted if path in blobs}
    known = {**({} if facts is None else facts.known(list(digests.values()))), **given}
    learned: dict[Digest, ModelFacts] = {}
    for path, digest in digests.items():
        if digest not in known:
            found, signature = _inspected(layout.blob(digest), path) if whole else (None, None)
            if found is None:
                return None
            known[digest] = found
            if signature is not None and signature == verified.get(digest):
                learned[digest] = found
    if facts is not None:
        facts.remember(learned)
    missing = next((path for path in wanted if path not in blobs), None)
    found = merged([known[digest] for digest in digests.values()], missing)
    beside = posixpath.join(posixpath.dirname(first), configuration.NAME)
    if found.format != "safetensors" or found.opaque is not None or beside not in blobs:
        return found
    content = _read(layout.blob(blobs[beside]), configuration.MAX_BYTES)
    return found if content is None else configuration.configured(found, content)


def header_of(
    manifest: Manifest, layout: Layout, keys: Sequence[str], *, tensors: bool
) -> tuple[dict[str, Any] | None, tuple[TensorView, ...]]:
    """Blocking. The values of keys of the header, and its tensors. Of a model in several parts the keys are those of
    the first."""
    first, blobs = _files(manifest)
    paths = [layout.blob(blobs[path]) for path in _parts(first, blobs, layout) if path in blobs]
    values: dict[str, Any] | None = None
    listed: list[TensorView] = []
    try:
        if keys:
            with _opened(paths[0]) as (descriptor, size):
                values = values_of(descriptor, size, keys)
        for path in paths if tensors else ():
            with _opened(path) as (descriptor, size):
                listed += islice(tensors_of(descriptor, size), MAX_TENSORS + 1 - len(listed))
    except OSError as fault:
        raise durable.store_fault(fault, "read the header of", fault.filename or layout.root) from fault
    except Unreadable as fault:
        raise Unsupported(
            f"the header of '{manifest.name}' cannot be read: {fault}", details={"name": manifest.name}
        ) from None
    if len(listed) > MAX_TENSORS or len(msgspec.json.encode((values, listed))) > MAX_BYTES:
        raise InvalidRequest(
            f"what was requested of the header of '{manifest.name}' is more than an answer has room for",
            hint="Request fewer keys, or the keys without the tensors.",
        )
    return values, tuple(listed)


def _files(manifest: Manifest) -> tuple[str, dict[str, Digest]]:
    """The path of the file that stands for the model, and the blobs of all by their paths."""
    blobs = {file.path: Digest.parse(file.blob) for file in manifest.files}
    if not blobs:
        name = manifest.source.filename if manifest.source is not None else None
        blobs = {name or manifest.name: manifest.digest}
    return next((path for path, digest in blobs.items() if digest == manifest.digest), next(iter(blobs))), blobs


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[int, int]]:
    with files.closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)) as descriptor:
        yield descriptor, os.fstat(descriptor).st_size


def _parts(first: str, blobs: Mapping[str, Digest], layout: Layout) -> list[str]:
    """The paths of the files that hold the weights, that of `first` before the others."""
    directory, name = posixpath.split(first)
    wanted: list[str] | None = None
    index = index_beside(first, blobs)
    if index is not None:
        content = _read(layout.blob(blobs[index]), MAX_INDEX)
        wanted = None if content is None else files_of_index(index, content, blobs)
    if wanted is None or first not in wanted:
        wanted = [posixpath.join(directory, part) for part in parts.shard_set(name) or [name]]
    return [first, *(path for path in wanted if path != first)]


def _inspected(path: str, name: str) -> tuple[ModelFacts | None, Signature | None]:
    """With the signature of the file; None when it changed meanwhile."""
    try:
        with _opened(path) as (descriptor, size):
            before = Signature.of(os.fstat(descriptor))
            facts = inspect(descriptor, size, name).facts
            after = Signature.of(os.fstat(descriptor))
            return facts, after if after == before else None
    except OSError:
        return None, None


def _read(path: str, longest: int) -> bytes | None:
    """None when it is too long for what it is, or cannot be read."""
    try:
        with _opened(path) as (descriptor, size):
            return os.pread(descriptor, size, 0) if size <= longest else None
    except OSError:
        return None
