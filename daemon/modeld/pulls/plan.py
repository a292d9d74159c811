"""What a pull is to do: which files of a source it takes, what it knows without a network, what it publishes.

Nothing here opens a connection, waits for one, or changes the store. A plan looks at the store: it is for threads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from modeld.download.source import FileInfo
from modeld.progress import JobProgress
from modeld.pulls.memory import RemoteFile, RemoteModel, version_of
from modeld.sources.globs import wanted
from modeld.sources.reference import Reference
from modeld.store import Digest, ModelName, parts
from modeld.store.ingest.ingest import ReadyFile, first_of, listed
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.manifests import File, Source
from modeld.store.publish.publishing import Publishing, PublishRequest
from modelwire.errors import InvalidRequest, SourceNotFound, SourceUnavailable, WireError
from modelwire.requests import ModelPull


@dataclass(frozen=True)
class Publication:
    """What to publish, and what the manifest says of its source."""

    request: PublishRequest
    source: dict[str, str]
    current: bool
    """The name stands for these bytes already."""


class Plan:
    def __init__(
        self, request: ModelPull, reference: Reference, publishing: Publishing, *, order: int, progress: JobProgress
    ) -> None:
        assert request.name is not None, "a request is given a name before it is admitted"
        self.request = request
        self.reference = reference
        self._publishing = publishing
        self.name = ModelName.parse(request.name)
        self.expected = None if request.sha256 is None else Digest.parse(request.sha256)
        globs = [*(f"+{glob}" for glob in request.include), *(f"-{glob}" for glob in request.exclude)]
        self.full_reference = " ".join([reference.text, *globs])
        """The reference with the choice of its files: what the manifest and the memory record."""

        self.publish_request = PublishRequest(
            name=self.name,
            replace=request.replace or self.follows(publishing.index.entry(self.name)),
            license=request.license,
            order=order,
            progress=progress,
        )

    def follows(self, existing: Entry | None) -> bool:
        """Whether the name was pulled by the same reference, whose present model then replaces the existing one."""
        if existing is None or existing.manifest is None or existing.name.text != self.name.text:
            return False
        try:
            source = existing.document().get("source")
        except (OSError, WireError):
            return False
        return isinstance(source, dict) and source.get("reference") == self.full_reference

    # -- without a source

    def models_to_find(self, remembered: RemoteModel | None, *, offline: bool) -> list[RemoteModel]:
        """What the reference may stand for without its source: the file of the expected digest, and offline what it
        stood for when its source was last asked."""
        found: list[RemoteModel] = []
        if self.expected is not None and self.reference.is_single:
            registry, repo = self.reference.written_place
            model = remembered or RemoteModel(registry=registry, repo=repo)
            path = os.path.basename(self.reference.name_hint.rstrip("/")) or "model"
            if len(model.files) == 1:
                path = model.files[0].path
            found.append(msgspec.structs.replace(model, files=(RemoteFile(path, self.expected.hex),)))
        known = (remembered or self._recorded_model()) if offline else None
        if known is None or not known.files:
            return found
        if self.expected is None or [self.expected.hex] == [file.digest for file in known.files]:
            found.append(known)
        return found

    def _recorded_model(self) -> RemoteModel | None:
        """From the manifest of a model that was pulled by this reference: the catalogue may be a new one."""
        existing = self._publishing.index.entry(self.name)
        if existing is None or not self.follows(existing):
            return None
        manifest = existing.usable()
        source = manifest.source or Source()
        alone = (File(path=source.filename or "model", blob=manifest.blob, size_bytes=manifest.size_bytes),)
        return RemoteModel(
            registry=source.registry or "",
            repo=source.repo or "",
            revision=source.revision or "",
            license=manifest.license,
            files=tuple(
                RemoteFile(file.path, Digest.parse(file.blob).hex, file.role) for file in manifest.files or alone
            ),
        )

    # -- the files of a source

    def choose(self, files: Sequence[FileInfo]) -> list[FileInfo]:
        """The files that the request includes. Raises when they cannot be the files of one model."""
        text = self.reference.text
        files = [file for file in files if wanted(file.path, self.request.include, self.request.exclude)]
        if not files:
            raise SourceNotFound(
                f"no file of {text} is left by what to include and exclude", hint="Leave some of it out."
            )
        if all(file.size == 0 for file in files):
            raise SourceUnavailable(
                f"{text} has no bytes", hint="Check the address; the file may not be uploaded yet.", retryable=False
            )
        if len(files) > parts.MAX_FILES:
            raise InvalidRequest(
                f"{text} has {len(files)} files, a model has at most {parts.MAX_FILES}",
                hint="Choose some with --include.",
            )
        if reason := parts.paths_fault([file.path for file in files]):
            raise SourceUnavailable(
                f"{text} has files that cannot be those of one model: {reason}",
                hint="Choose others with --include and --exclude.",
                retryable=False,
            )
        if self.expected is not None and len(files) != 1:
            raise InvalidRequest(
                f"$.sha256: {text} is a model of {len(files)} files, and a digest is of one",
                hint="Pull it without --sha256; `modelctl show` prints the digest of each file.",
            )
        return list(files)

    def version(self, file: FileInfo, revision: str | None) -> str | None:
        """The key of the file's version, when its source names one: by a validator, or by an immutable revision of
        the whole model."""
        validator = file.validator or revision
        if validator is None or self.reference.secrets:
            return None
        return version_of(file.origin or "", file.locator, f"{validator} {file.size}")

    def refuse_early(self, files: Sequence[FileInfo], digests: Sequence[Digest | None]) -> None:
        """Raises when the name must not be given, before the first byte is fetched for it."""
        known = [
            File(path=file.path, blob=digest.text, size_bytes=file.size or 0, role=file.role)
            for file, digest in zip(files, digests, strict=True)
            if digest is not None
        ]
        if len(known) < len(files):
            sizes = [file.size for file in files if file.size is not None]
            self._publishing.judge_unseen(self.publish_request, sum(sizes) if len(sizes) == len(files) else None)
            return
        first = parts.first_weights([(file.path, file.role or "", file.size_bytes) for file in known])
        self._publishing.judge(self.publish_request, Digest.parse(known[first].blob), known if len(known) > 1 else ())

    # -- the name

    def publication(self, files: Sequence[ReadyFile], model: RemoteModel, *, asked: bool) -> Publication:
        """`asked` says whether the source has just described the model."""
        first, tree = first_of(files), [] if len(files) == 1 else listed(files)
        source = {
            "registry": model.registry,
            "repo": model.repo,
            "revision": model.revision,
            "filename": first.path,
            "reference": self.full_reference,
        }
        request, existing = self.publish_request, self._publishing.index.entry(self.name)
        # Judged as if it were not to be replaced: the same bytes under the same name need no new manifest.
        kept = replace(request, replace=False)
        if existing is None or not self._same(existing, kept, first.digest, tree):
            license_ = self.request.license or model.license
            return Publication(replace(request, license=license_), source, current=False)
        if asked and self.follows(existing) and _moved(existing, model):
            # The same bytes under another revision: the new manifest names it, and keeps everything else.
            kept = replace(request, license=self.request.license or existing.usable().license, replace=True)
        return Publication(kept, source, current=True)

    def _same(self, existing: Entry, request: PublishRequest, digest: Digest, files: Sequence[File]) -> bool:
        if existing.manifest is None or existing.name.text != self.name.text:
            return False
        try:
            return self._publishing.judge(request, digest, files)
        except WireError:
            return False


def _moved(existing: Entry, model: RemoteModel) -> bool:
    """Whether the source names another revision than the manifest. The registry does not count: today's mirror serves
    the same files."""
    recorded = existing.usable().source or Source()
    return (recorded.repo, recorded.revision) != (model.repo, model.revision)
