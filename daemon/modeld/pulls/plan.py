"""What a pull is to do: which files of what a source has, what may be said without a network, which name they get.

Nothing here opens a connection, waits for one, or changes the store.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from modeld.download.source import FileInfo
from modeld.pulls.memory import Meaning, MeantFile, version_of
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
    """What is to be published, and how it is told."""

    request: PublishRequest
    source: dict[str, str]
    current: bool
    """The name stands for these bytes already."""


@dataclass(frozen=True)
class Plan:
    request: ModelPull
    reference: Reference
    publishing: Publishing

    @cached_property
    def name(self) -> ModelName:
        assert self.request.name is not None, "a request is given a name before it is admitted"
        return ModelName.parse(self.request.name)

    @cached_property
    def expected(self) -> Digest | None:
        return None if self.request.sha256 is None else Digest.parse(self.request.sha256)

    @cached_property
    def followed(self) -> str:
        """What the name stands for from now on: the reference, and which of its files."""
        request = self.request
        globs = [*(f"+{glob}" for glob in request.include), *(f"-{glob}" for glob in request.exclude)]
        return " ".join([self.reference.text, *globs])

    def follows(self, standing: Entry | None) -> bool:
        """Whether the name was pulled by the same reference: then what that means now takes its place."""
        if standing is None or standing.manifest is None or standing.name.text != self.name.text:
            return False
        try:
            source = standing.document().get("source")
        except (OSError, WireError):
            return False
        return isinstance(source, dict) and source.get("reference") == self.followed

    # -- without a source

    def offline_meaning(self, remembered: Meaning | None) -> Meaning | None:
        """What the reference meant when it was last asked; None when that is not known, or not what is expected."""
        meaning = remembered or self._recorded()
        if meaning is None or not meaning.files:
            return None
        if self.expected is not None and [self.expected.hex] != [file.digest for file in meaning.files]:
            return None
        return meaning

    def _recorded(self) -> Meaning | None:
        """From the manifest of a model that was pulled by this reference: the catalogue may be a new one."""
        standing = self.publishing.index.entry(self.name)
        if standing is None or not self.follows(standing):
            return None
        manifest = standing.usable()
        source = manifest.source or Source()
        alone = (File(path=source.filename or "model", blob=manifest.blob, size_bytes=manifest.size_bytes),)
        return Meaning(
            registry=source.registry or "",
            repo=source.repo or "",
            revision=source.revision or "",
            license=manifest.license,
            files=tuple(
                MeantFile(file.path, Digest.parse(file.blob).hex, file.size_bytes, file.role)
                for file in manifest.files or alone
            ),
        )

    def written_meaning(self) -> Meaning:
        """What the spelling alone says of where it comes from."""
        registry, repo = self.reference.written_place
        return Meaning(registry=registry, repo=repo)

    def path_of_one(self, meaning: Meaning) -> str:
        """The name of the file, when its digest was found here and no source was asked."""
        if len(meaning.files) == 1:
            return meaning.files[0].path
        return os.path.basename(self.reference.name_hint.rstrip("/")) or "model"

    # -- the files of a source

    def choose(self, files: Sequence[FileInfo]) -> list[FileInfo]:
        """Those that are wanted, as the files of one model; refused when they cannot be that."""
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
                hint="pull it without --sha256; `modelctl show` tells the digest of each file",
            )
        return list(files)

    def version(self, file: FileInfo, revision: str | None) -> str | None:
        """One that its source names: by a validator, or by an immutable revision of all that it has."""
        stands = file.validator or revision
        if stands is None or self.reference.secrets:
            return None
        return version_of(file.origin or "", file.locator, f"{stands} {file.size}")

    def refuse_early(
        self, publish_as: PublishRequest, files: Sequence[FileInfo], digests: Sequence[Digest | None]
    ) -> None:
        """A name that may not be given is refused before the first byte is fetched for it."""
        named = [
            File(path=file.path, blob=digest.text, size_bytes=file.size or 0, role=file.role)
            for file, digest in zip(files, digests, strict=True)
            if digest is not None
        ]
        if len(named) < len(files):
            sizes = [file.size for file in files if file.size is not None]
            self.publishing.judge_unseen(publish_as, sum(sizes) if len(sizes) == len(files) else None)
            return
        first = parts.first_weights([(file.path, file.role or "", file.size_bytes) for file in named])
        self.publishing.judge(publish_as, Digest.parse(named[first].blob), named if len(named) > 1 else ())

    # -- the name

    def publication(
        self, publish_as: PublishRequest, arrived: Sequence[ReadyFile], meaning: Meaning, *, asked: bool
    ) -> Publication:
        """`asked` says whether the meaning comes from the source, just now."""
        first, tree = first_of(arrived), [] if len(arrived) == 1 else listed(arrived)
        source = {
            "registry": meaning.registry,
            "repo": meaning.repo,
            "revision": meaning.revision,
            "filename": first.path,
            "reference": self.followed,
        }
        standing = self.publishing.index.entry(self.name)
        # Judged as if it were not to be replaced: the same bytes under the same name need no new manifest.
        kept = replace(publish_as, replace=False)
        if standing is None or not self._same(standing, kept, first.digest, tree):
            return Publication(
                replace(publish_as, license=self.request.license or meaning.license), source, current=False
            )
        if asked and self.follows(standing) and _moved(standing, meaning):
            # The same bytes under another revision: the manifest says which, and all else of it stays.
            kept = replace(publish_as, license=self.request.license or standing.usable().license, replace=True)
        return Publication(kept, source, current=True)

    def _same(self, standing: Entry, publish_as: PublishRequest, digest: Digest, files: Sequence[File]) -> bool:
        if standing.manifest is None or standing.name.text != self.name.text:
            return False
        try:
            return self.publishing.judge(publish_as, digest, files)
        except WireError:
            return False


def _moved(standing: Entry, meaning: Meaning) -> bool:
    """Whether the source says something else than the manifest. The registry does not count: a mirror that answers
    today has the same to give."""
    recorded = standing.usable().source or Source()
    return (recorded.repo, recorded.revision) != (meaning.repo, meaning.revision)
