"""The system calls for further names of a file: hard and symbolic links.

They raise OSError, as those of `durable` do.
"""

from __future__ import annotations

import errno
import os


def link_or_symlink(target: str, name: str, *, hard: bool, final: str) -> bool:
    """Gives a blob a name in a tree; returns True for a hard link. A symbolic link is relative, because a store may be
    moved: relative to `final`, the path that the name gets later."""
    if hard:
        try:
            os.link(target, name, follow_symlinks=False)
            return True
        except OSError as error:
            # No links on this filesystem, no more links for this file, or a file of another user.
            if error.errno not in (
                errno.EPERM,
                errno.EMLINK,
                errno.EOPNOTSUPP,
                errno.ENOTSUP,
                errno.ENOSYS,
                errno.EXDEV,
            ):
                raise
    os.symlink(os.path.relpath(target, os.path.dirname(final)), name)
    return False
