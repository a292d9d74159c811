"""Which of the described files a request includes and excludes."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Globs of the whole path, as the hub's own client takes them: `*` also crosses `/`, and `dir/` means all in it."""
    if include and not any(_fits(path, glob) for glob in include):
        return False
    return not any(_fits(path, glob) for glob in exclude)


def _fits(path: str, glob: str) -> bool:
    return fnmatchcase(path, glob + "*" if glob.endswith("/") else glob)
