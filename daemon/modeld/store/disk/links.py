"""The system calls for second names of files: hard links, symbolic ones, and who has a file open.

They raise OSError, as those of `durable` do.
"""

from __future__ import annotations

import errno
import os


def link_or_symlink(target: str, name: str, *, hard: bool, final: str) -> bool:
    """A name in a tree for a blob; True when it is a hard link. A symbolic one is relative, because stores may move:
    to where the name will be in the end."""
    if hard:
        try:
            os.link(target, name, follow_symlinks=False)
            return True
        except OSError as error:
            # No links on this filesystem, no more links for this file, or a file of somebody else.
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
