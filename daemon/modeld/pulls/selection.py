"""Which files of what a source has make the model."""

from __future__ import annotations

from collections.abc import Sequence

from modeld.download.source import FileInfo
from modeld.sources.globs import wanted
from modeld.sources.reference import Reference
from modeld.store import parts
from modelwire.errors import InvalidRequest, SourceNotFound, SourceUnavailable


def chosen(
    files: Sequence[FileInfo], reference: Reference, include: Sequence[str], exclude: Sequence[str]
) -> list[FileInfo]:
    """Those that are wanted, as the files of one model; refused when they cannot be that."""
    files = [file for file in files if wanted(file.path, include, exclude)]
    if not files:
        raise SourceNotFound(
            f"no file of {reference.text} is left by what to include and exclude", hint="Leave some of it out."
        )
    if all(file.size == 0 for file in files):
        raise SourceUnavailable(
            f"{reference.text} has no bytes",
            hint="Check the address; the file may not be uploaded yet.",
            retryable=False,
        )
    if len(files) > parts.MAX_FILES:
        raise InvalidRequest(
            f"{reference.text} has {len(files)} files, a model has at most {parts.MAX_FILES}",
            hint="Choose some with --include.",
        )
    reason = parts.paths_fault([file.path for file in files])
    if reason is not None:
        raise SourceUnavailable(
            f"{reference.text} has files that cannot be those of one model: {reason}",
            hint="Choose others with --include and --exclude.",
            retryable=False,
        )
    return list(files)
