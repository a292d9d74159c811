"""A name for bytes that are complete: what every way into the store ends with.

In the publisher's turn and under the name's lock: the blob's name, the manifest, the notes of whoever asked, and only
then the answer. A reader sees the model complete or not at all, and each crash in between is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread

from modeld.progress import JobProgress
from modeld.store.blobs.blobs import Blob
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import name_lock
from modeld.store.manifests import manifests
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.index import Index
from modeld.store.manifests.manifests import File, Manifest
from modeld.store.names import ModelName
from modeld.store.publish.publisher import Publisher
from modelwire.errors import AlreadyExists, Corrupt, Unsupported
from modelwire.values import Added, ModelFile

T = TypeVar("T")

Commit = Callable[[], tuple[Blob, bool]]
"""Blocking: gives the blob its name, or finds it there; True beside it when it was there already."""


Published = TypeVar("Published", contravariant=True)


class Notes(Protocol[Published]):
    """Told in the publisher's turn. What `about_to_publish` raises prevents the publication."""

    async def about_to_publish(self, value: Published, /) -> None: ...

    async def published(self, value: Published, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Under which name, and what may stand in the way."""

    name: ModelName
    expected: Digest | None = None
    replace: bool = False
    license: str | None = None
    order: int
    observer: JobProgress
    notes: Notes[Added] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """Where names are given out: the parts of the store that a publication needs."""

    layout: Layout
    index: Index
    publisher: Publisher
    threads: anyio.CapacityLimiter
    lock_seconds: float

    async def publish(
        self,
        wish: Wish,
        digest: Digest,
        commit: Commit,
        *,
        format: str,  # noqa: A002 - the manifest's word
        source: Mapping[str, str],
        files: Sequence[File] = (),
        path: str | None = None,
    ) -> tuple[Added, Blob]:
        """The same bytes under the same name again change nothing and are success.

        With `files`, `digest` is that of the one that stands for the model, `commit` counts what it commits itself,
        and `path` is where they are shown together.
        """
        name_free = name_lock(self.layout, wish.name, self.lock_seconds, self.threads, stopped=wish.observer.stopped)
        # The name's lock first: another tool that holds it keeps this name waiting, not every publication.
        async with name_free, self.publisher.turn(wish.order):
            wish.observer.phase("publish")
            standing = self.index.entry(wish.name)
            same = judge(standing, wish, digest, files)
            # Once begun it is finished: a half-done publication helps nobody, and it takes milliseconds.
            with anyio.CancelScope(shield=True):
                blob, reused = await self._blocking(commit)
                if not reused and not files:
                    wish.observer.advance(committed=blob.size)
                shown = standing.usable().format if same and standing is not None else format
                added = _added(wish, blob, shown, files, path, reused=reused)
                if not same or not await self._made_lasting(wish.name):
                    await self._name(wish, added, blob, source, files, standing)
        return added, blob

    async def _name(
        self,
        wish: Wish,
        added: Added,
        blob: Blob,
        source: Mapping[str, str],
        files: Sequence[File],
        standing: Entry | None,
    ) -> None:
        """The manifest: the last write, after which the model is there."""
        document = manifests.compose(
            wish.name,
            digest=blob.digest,
            size=blob.size,
            format=added.format,
            license=wish.license,
            source=source,
            files=files,
            before=_before(standing),
        )
        if wish.notes is not None:
            await wish.notes.about_to_publish(added)
        try:
            with self.index.changing(wish.name):
                await self._blocking(partial(manifests.write, self.layout, wish.name, document, replace=wish.replace))
        except AlreadyExists:
            # Another tool was faster, without the lock. What it published may be the very same.
            same = judge(self.index.entry(wish.name), wish, blob.digest, files)
            if not same or not await self._made_lasting(wish.name):
                raise
        # ---- The model is there: from here on nothing is taken back. ----
        if wish.notes is not None:
            await wish.notes.published(added)

    async def _made_lasting(self, name: ModelName) -> bool:
        return await self._blocking(partial(manifests.make_lasting, self.layout, name))

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self.threads)


def judge(standing: Entry | None, wish: Wish, digest: Digest | None, files: Sequence[File] = ()) -> bool:
    """Whether the name already says what is wished. Raises when it must not be given; `digest` may be unknown yet."""
    if standing is None:
        return False
    name = wish.name
    if standing.name.text != name.text:
        raise AlreadyExists(
            f"'{name.text}' is another spelling of '{standing.name.text}', which is already there",
            hint=f"say '{standing.name.text}', or choose a name that differs in more than case",
            details={"name": name.text, "existing": standing.name.text},
        )
    if isinstance(standing.fault, Unsupported):
        raise standing.fault
    if wish.replace:
        return False
    if standing.manifest is None:
        why = standing.fault.message if standing.fault is not None else f"{standing.path} cannot be used"
        raise AlreadyExists(
            f"the name '{name.text}' is taken by a manifest that cannot be used: {why}",
            hint="repair or remove that file, or say that it is to be replaced",
            details={"name": name.text, "path": standing.path},
        )
    if digest is None:
        return False
    if not standing.manifest.digest.matches(digest) or not _same_files(standing.manifest, files):
        fault = manifests.taken(name)
        fault.details.update(existing=standing.manifest.digest.text, wanted=digest.text)
        raise fault
    if wish.license is not None and wish.license != standing.manifest.license:
        raise AlreadyExists(
            f"'{name.text}' has these bytes already, with {_license(standing.manifest.license)}",
            hint="say that it is to be replaced to record another license",
            details={"name": name.text, "license": standing.manifest.license},
        )
    return True


def _same_files(manifest: Manifest, files: Sequence[File]) -> bool:
    """Roles do not count: they are guessed from the names."""
    return {(file.path, file.blob) for file in manifest.files} == {(file.path, file.blob) for file in files}


def _license(text: str | None) -> str:
    return "no license recorded" if text is None else f"the license {text!r}"


def _before(standing: Entry | None) -> dict[str, Any] | None:
    """The manifest that is replaced, for the fields that are not modeld's; none when it cannot be read."""
    if standing is None or standing.manifest is None:
        return None
    try:
        return manifests.read_document(standing.path)
    except (OSError, Corrupt):
        return None


def _added(
    wish: Wish,
    blob: Blob,
    format: str,  # noqa: A002 - the value's word
    files: Sequence[File],
    path: str | None,
    *,
    reused: bool,
) -> Added:
    return Added(
        name=wish.name.text,
        blob=blob.digest.text,
        size_bytes=sum(file.size_bytes for file in files) if files else blob.size,
        format=format,
        path=blob.path if path is None else path,
        reused=reused,
        files=tuple(
            ModelFile(path=file.path, blob=file.blob, size_bytes=file.size_bytes, role=file.role) for file in files
        ),
    )
