"""The globs by which a request includes and excludes files."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Matches the whole path, as the hub's own client does: `*` also matches `/`, and `dir/` means all files in it."""
    if include and not any(_fits(path, glob) for glob in include):
        return False
    return not any(_fits(path, glob) for glob in exclude)


def _fits(path: str, glob: str) -> bool:
    return fnmatchcase(path, glob + "*" if glob.endswith("/") else glob)
