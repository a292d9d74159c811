"""What a pull is to do: which files of a source it takes, what it knows without a network, what it publishes.

Nothing here opens a connection, waits for one, or changes the store. A plan looks at the store: it is for threads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Unpack

from modeld.download.source import FileInfo
from modeld.progress import JobProgress
from modeld.pulls.memory import RemoteFile, RemoteModel
from modeld.pulls.recorded import recorded_text
from modeld.sources.globs import wanted
from modeld.sources.reference import Reference
from modeld.store import Digest, ModelName, Requester, parts
from modeld.store.ingest.ingest import ReadyFile, first_of, listed, standing_for
from modeld.store.ingest.trusted import Origin
from modeld.store.manifests.manifests import MAX_MANIFEST, File, Manifest, Source
from modeld.store.manifests.writing import bytes_of_files
from modeld.store.publish.publishing import (
    Ensuring,
    Publishing,
    PublishRequest,
    PublishTerms,
    format_rule,
    of_several_files,
)
from modelwire.errors import InvalidRequest, SourceNotFound, SourceUnavailable, WireError
from modelwire.requests import ModelPull


class Plan:
    def __init__(
        self,
        request: ModelPull,
        reference: Reference,
        publishing: Publishing,
        *,
        requester: Requester,
        order: int,
        progress: JobProgress,
        **terms: Unpack[PublishTerms],
    ) -> None:
        self.reference = reference
        self._publishing = publishing
        self.expected = None if request.sha256 is None else Digest.parse(request.sha256)
        self.full_reference = recorded_text(reference, request.include, request.exclude)
        """The reference with the choice of its files: what the manifest and the memory record."""

        self._publication = partial(
            PublishRequest,
            formats=format_rule(force=request.force_format, strict=request.strict_format),
            provenance=reference.text,
            requester=requester,
            order=order,
            progress=progress,
            **terms,
        )
        self.take_name(request, terms.get("ensuring"))

    def take_name(self, request: ModelPull, ensuring: Ensuring | None) -> None:
        """Makes it the plan of this request, which differs in nothing but the name and what it may replace."""
        assert request.name is not None, "a request is given a name before it is admitted"
        self.request = request
        self.name = ModelName.parse(request.name)
        if self.name == self.reference.suggested_name:
            standing = self._publishing.index.entry(self.name)
            self.name = self.name if standing is None else standing.name  # `…:q4_k_m` means what `…:Q4_K_M` has pulled
        self.publish_request = self._publication(name=self.name, license=request.license, ensuring=ensuring)
        self.look_at_name()

    def look_at_name(self) -> None:
        """What may be replaced depends on what the name stands for now."""
        insists = self.request.replace
        may_replace = insists or (not self.publish_request.fixed and self.followed() is not None)
        self.publish_request = replace(self.publish_request, replace=may_replace, follows=not insists)

    def followed(self) -> Manifest | None:
        """The manifest of the name, when the same reference was pulled under it: what it means now replaces it."""
        existing = self._publishing.index.entry(self.name)
        if existing is not None and existing.name.text == self.name.text:
            with suppress(OSError, WireError):
                source = existing.document().get("source")
                if isinstance(source, dict) and source.get("reference") == self.full_reference:
                    return existing.manifest
        return None

    # -- without a source

    def models_to_find(self, remembered: RemoteModel | None, *, offline: bool) -> list[RemoteModel]:
        """What the request may be answered with without its source: the file of the expected digest, or what the
        reference stood for when its source was last asked, if that cannot change or no source may be asked."""
        unasked, known = offline or self.reference.is_immutable, remembered
        if known is None and unasked:
            known = self._recorded_model()
        if unasked and known is not None and known.files:
            self._check_number(len(known.files))
        if self.expected is None:
            return [known] if unasked and known is not None and known.files else []
        single = self.reference.is_single
        if (unasked or single) and known and [self.expected.hex] == [file.digest for file in known.files]:
            return [known]
        if not single:
            return []
        path = os.path.basename(self.reference.name_hint.rstrip("/")) or "model"
        if known is not None and len(known.files) == 1:
            path = known.files[0].path
        return [RemoteModel(files=(RemoteFile(path, self.expected.hex),), said=False)]

    def _recorded_model(self) -> RemoteModel | None:
        """From the manifest of a model that was pulled by this reference: the catalogue may be a new one."""
        manifest = self.followed()
        if manifest is None:
            return None
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
        if (size := len(self.full_reference) + bytes_of_files(file.path for file in files)) > MAX_MANIFEST:
            raise InvalidRequest(
                f"{text} has {len(files)} files, whose paths would take {size} bytes of the manifest:"
                f" {MAX_MANIFEST} are allowed",
                hint="Choose some with --include, or with fewer globs.",
            )
        if reason := parts.paths_fault([file.path for file in files]):
            raise SourceUnavailable(
                f"{text} has files that cannot be those of one model: {reason}",
                hint="Choose others with --include and --exclude.",
                retryable=False,
            )
        self._check_number(len(files))
        return files

    def _check_number(self, count: int) -> None:
        if count != 1 and (self.expected is not None or self.publish_request.is_of_one_file):
            raise of_several_files(self.reference.text, count)

    def version(self, file: FileInfo, revision: str | None) -> str | None:
        """By what the memory knows the digest of this file. None when the digest is known without it, and when the
        source names no version: neither by a validator nor by an immutable revision of the whole model."""
        validator = file.validator or revision
        if file.digest is not None or validator is None or self.reference.secrets:
            return None
        # Hashed: an address may be long, or hold more than may be stored.
        version = f"{file.origin or ''}\0{file.locator}\0{validator} {file.size}"
        return sha256(version.encode("utf-8", "surrogatepass")).hexdigest()

    def refuse_early(self, files: Sequence[FileInfo]) -> None:
        """Raises when the name must not be given, before the first byte is fetched for it."""
        known = [File(file.path, file.digest.text, file.size or 0, file.role) for file in files if file.digest]
        if len(known) == len(files):
            self._publishing.judge(self.publish_request, *standing_for(known, alone=len(known) == 1))
        else:
            sizes = [file.size for file in files if file.size is not None]
            self._publishing.judge_unseen(self.publish_request, sum(sizes) if len(sizes) == len(files) else None)

    # -- the name

    def origin(
        self, paths: Sequence[str], signature: bytes | None, *, all_there: bool = False, said: bool = True
    ) -> Origin:
        """What the rules of [trust] judge: the reference of the request, whoever gives the bytes. `all_there` says
        whether the source had nothing to choose, `said` whether it has ever named these bytes."""
        request, reference = self.request, self.reference
        whole = all_there and reference.is_whole and not request.include and not request.exclude
        return Origin(
            reference=reference.text,
            spellings=reference.spellings(paths),
            signature=signature,
            whole=whole,
            placeless=not (reference.network and said),
        )

    def publication(
        self, files: Sequence[ReadyFile], model: RemoteModel, *, asked: bool
    ) -> tuple[PublishRequest, bool]:
        """What to publish, and whether the name stands for these bytes already. `asked` says whether the source has
        just described the model and these are its bytes."""
        # Judged as if it were not to be replaced: the same bytes under the same name need no new manifest.
        kept = replace(self.publish_request, replace=False)
        current = False
        with suppress(WireError):
            current = self._publishing.judge(kept, first_of(files).digest, listed(files) if len(files) > 1 else ())
        if not current:
            provenance = self.reference.text if model.said else first_of(files).digest.text
            license_ = self.request.license or model.license
            return replace(self.publish_request, license=license_, provenance=provenance), False
        if asked and (followed := self.followed()) is not None:
            recorded = followed.source or Source()
            # The registry does not count: today's mirror serves the same files.
            if (recorded.repo, recorded.revision) != (model.repo, model.revision):
                # The same bytes under another revision: the new manifest names it, and keeps everything else.
                kept = replace(kept, license=self.request.license or followed.license, replace=True)
        return kept, True

    def source(self, files: Sequence[ReadyFile], model: RemoteModel) -> dict[str, str]:
        """What the manifest says of the source: nothing when the source did not say that these are its bytes."""
        if not model.said:
            return {}
        return {
            "registry": model.registry,
            "repo": model.repo,
            "revision": model.revision,
            "filename": first_of(files).path,
            "reference": self.full_reference,
        }
