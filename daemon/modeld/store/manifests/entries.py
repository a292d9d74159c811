"""One manifest in memory: its content, what it resolves to, and the files to stat for each answer."""

from __future__ import annotations

import contextlib
import difflib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from modeld.store.catalog.records import Records
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.listing import Times
from modeld.store.manifests import manifests
from modeld.store.manifests.manifests import Manifest
from modeld.store.manifests.states import READY, WHOLE, Answer, Condition, Look
from modeld.store.manifests.trees import Trees
from modeld.store.names import ModelName
from modelwire.errors import Corrupt, Internal, NotFound, Unsupported, WireError
from modelwire.values import ModelFile, ModelView, Provenance, Resolved

Why = Callable[[str], str | None]
"""The reason why a blob is missing, by its path; None when it is not known."""


def unknown(_blob: object) -> None:
    return None


_ECHO: Final = 500
"""Characters of an unknown path that are compared with the known ones and repeated in the message: all of a usual path.
A request has room for a million, and comparing these delayed every client by a quarter of a second."""

_VERIFIED_FIRST: Final = "it is verified before it is given out"

_LINKED: Final = "a file that has another name outside the store has changed"


class NamedBlob(NamedTuple):
    path: str
    digest: Digest
    size: int
    """By the manifest, which may be wrong: the digest decides."""


class AtSite(Unsupported):
    """The model is one of a site, which is only read."""


class WouldBlock(Exception):
    """Looks cannot give the answer: a tree has to be made, or bytes have to be hashed."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name.text)
        self.entry = entry


@dataclass(frozen=True, slots=True)
class Entry:
    """One manifest as it was read: its content, or the fault that makes it unusable."""

    name: ModelName
    path: str
    times: Times
    settled: bool
    manifest: Manifest | None
    fault: WireError | None
    blobs: tuple[NamedBlob, ...] = ()
    """The first is what the name resolves to."""
    resolved: Resolved | None = None
    ready: ModelView | None = None
    """The view while nothing is missing, made once: a page has up to a thousand of them."""
    why: Why = unknown
    records: Records | None = None
    trees: Trees | None = None
    tree: str | None = None
    """The tree of a model of several files."""
    plain: bool = False
    """One blob without a name outside the store."""
    site: str | None = None
    """The root of the site that has it; None for the store's own."""

    @property
    def owner(self) -> int | None:
        """The user who named the model; None when that is not known."""
        return None if self.manifest is None else self.manifest.owner

    @property
    def ids(self) -> tuple[str, ...]:
        """The texts by which the model is known beside its name."""
        return () if self.manifest is None else self.manifest.ids

    def usable(self) -> Manifest:
        """The manifest; raises its fault when it cannot be used."""
        if self.manifest is None:
            raise self._fault()
        return self.manifest

    def _fault(self) -> WireError:
        return self.fault or Internal(f"the manifest {self.path} cannot be used")

    def look(self) -> Look:
        """The present condition of the model, from its blobs' names, sizes and signatures. Nothing else decides it."""
        if self.manifest is None:
            return Look(Condition.DAMAGED, self._fault().message)
        contradiction = suspicion = ""
        for blob in self.blobs:
            path = blob.path
            try:
                info = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                return Look(Condition.LACKING, self.why(path) or f"its blob is missing: {path}")
            except OSError as fault:
                return Look(Condition.LACKING, f"its blob cannot be read: {path}: {fault.strerror}")
            if not stat.S_ISREG(info.st_mode):
                return Look(Condition.LACKING, f"its blob is not a regular file: {path}")
            if info.st_size != blob.size:
                contradiction = _contradiction(blob, info.st_size)
            suspicion = suspicion or self._suspicion(blob, Signature.of(info))
        # The store itself may have made a link between the look at the file and that at the records.
        if suspicion and self.suspects():
            return Look(Condition.CHANGED, f"{suspicion}; {_VERIFIED_FIRST}")
        return Look(Condition.WHOLE, contradiction) if contradiction else WHOLE

    def suspects(self) -> list[Digest]:
        """Blobs that may have other bytes than when they were last found good."""
        return [blob.digest for blob in self.blobs if self._suspicion(blob, Signature.of(_stat(blob.path)))]

    def _suspicion(self, blob: NamedBlob, now: Signature) -> str:
        """Why the blob may have other bytes than when it was last found good; empty when it has the same."""
        trees, records = self.trees, self.records
        if trees is None or records is None:
            return ""
        if trees.linked.suspect(blob.digest, now):
            return _LINKED
        known = records.known(blob.digest, now)
        if not known.is_unchanged(now):
            if not trees.only_relinked(known, now):
                other = _contradiction(blob, now.size) if now.size != blob.size else ""
                return other or f"its blob has changed since it was last verified or seen: {blob.path}"
            records.relinked(blob.digest, known, now)
        if now.size == blob.size or ((proof := records.proof(blob.digest)) is not None and proof.is_unchanged(now)):
            return ""
        return _contradiction(blob, now.size)

    def sizes(self) -> dict[str, int]:
        """The size of each blob, by its digest as the manifest has it: that of its file, the manifest's when there is
        none."""
        sizes = {}
        for path, digest, size in self.blobs:
            with contextlib.suppress(OSError):
                size = os.lstat(path).st_size
            sizes[digest.text] = size
        return sizes

    def listed_sizes(self) -> list[tuple[str, int]]:
        """The blob of each file, as the manifest names it, and the size of that blob."""
        sizes = self.sizes()
        return [(blob, sizes[Digest.parse(blob).text]) for blob in self.usable().listed]

    def total_bytes(self) -> int:
        """Of all files, which may share a blob."""
        return sum(size for _, size in self.listed_sizes())

    def is_shown(self) -> bool:
        """Whether the path exists: a model of several files needs a tree that is known to be whole."""
        return self.tree is None or (self.trees is not None and self.trees.known_whole(self.tree))

    def resolved_file(self, path: str) -> Resolved:
        """One file of the model, by its path in the model; a model of one file has the name that it came with."""
        manifest, resolved = self.usable(), self.resolved
        for file in manifest.files:
            if file.path == path:
                return Resolved(
                    name=manifest.name, path=f"{self.tree}/{path}", blob=file.blob, state=READY, site=self.site
                )
        alone = manifest.source.filename if manifest.source is not None and not manifest.files else None
        if alone == path and resolved is not None:
            return resolved
        names = [file.path for file in manifest.files] or [alone or "one file without a name"]
        path = path[:_ECHO]
        close = difflib.get_close_matches(path, names, n=3, cutoff=0.4)
        raise NotFound(
            f"'{manifest.name}' has no file {path!r}",
            hint=f"Did you mean {' or '.join(close)}?" if close else f"It has {', '.join(names[:8])}.",
            details={"name": manifest.name, "file": path},
        )

    def document(self) -> dict[str, Any]:
        """The manifest file with all its fields, as it is now."""
        try:
            return manifests.read_document(self.path)
        except FileNotFoundError:
            raise NotFound(
                f"the model '{self.name.text}' was removed meanwhile", details={"name": self.name.text}
            ) from None
        except OSError as fault:
            raise durable.store_fault(fault, "read the manifest", self.path) from fault

    def view(self) -> ModelView:
        """Raises the manifest's fault when it cannot be used."""
        look = self.look()
        if look is WHOLE and self.ready is not None:
            return self.ready
        if self.ready is None or look.state.name is None:
            raise self._fault()
        listed = self.listed_sizes()
        files = tuple(
            msgspec.structs.replace(file, size_bytes=size)
            for file, (_, size) in zip(self.ready.files, listed, strict=False)
        )
        return msgspec.structs.replace(
            self.ready,
            size_bytes=sum(size for _, size in listed),
            state=look.state.name,
            path=self.ready.path if look.state.answer is Answer.PATH else None,
            reason=look.reason,
            files=files,
        )

    def checked(self, look: Look) -> Resolved:
        """The answer to a request for the path; raises when the model cannot be used."""
        if self.resolved is None:
            raise self._fault()
        if look.state.answer is Answer.REFUSAL:
            raise cannot_be_used(self, look.reason)
        return self.resolved


def shown_as(manifest: Manifest, path: str, site: str | None) -> ModelView:
    """The view of a model while nothing of it is missing."""
    return ModelView(
        name=manifest.name,
        format=manifest.format,
        blob=manifest.digest.text,
        size_bytes=manifest.total_bytes,
        state=READY,
        path=path,
        license=manifest.license,
        source=_provenance(manifest),
        produced_by=manifest.produced_by,
        produced_at=manifest.produced_at,
        owner=manifest.owner,
        pinned=manifest.pinned is True,
        ids=manifest.ids,
        site=site,
        files=tuple(
            ModelFile(path=file.path, blob=file.blob, size_bytes=file.size_bytes, role=file.role)
            for file in manifest.files
        ),
    )


def _provenance(manifest: Manifest) -> Provenance | None:
    source = manifest.source
    if source is None:
        return None
    return Provenance(
        registry=source.registry or "",
        repo=source.repo or "",
        revision=source.revision or "",
        filename=source.filename or "",
    )


def cannot_be_used(entry: Entry, reason: str) -> Corrupt:
    manifest = entry.usable()
    return Corrupt(
        f"'{manifest.name}' cannot be used: {reason}",
        hint=f"{get_again(entry)} Its manifest is kept.",
        details={"name": manifest.name, "blob": manifest.digest.text, "reason": reason},
    )


def get_again(entry: Entry) -> str:
    """The sentence that says how to have the bytes of a model again. Its own name is no source of them."""
    manifest = entry.usable()
    if entry.site is not None:
        return f"Verify and repair it at its site {entry.site}, by the daemon of that store."
    source = manifest.source
    known = [part for part in (source.registry, source.repo, source.filename) if part] if source is not None else []
    named = f" ({', '.join(known)})" if known else ""
    repair = f"Run `modelctl repair {manifest.name}`"
    return f"{repair}, or pull or add it again from its source{named}, not by its name."


def _contradiction(blob: NamedBlob, size: int) -> str:
    return f"its blob has {size} bytes, the manifest says {blob.size}: {blob.path}"


def _stat(path: str) -> os.stat_result:
    with durable.store_faults("look at", path):
        return os.lstat(path)
