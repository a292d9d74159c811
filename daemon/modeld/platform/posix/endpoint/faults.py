"""The errors of an endpoint, each with a hint.

ModeldError
├── UnusableEndpoint               the path cannot be an endpoint: too long, or something else is there
└── WireError
    ├── InUse → AlreadyServing     another process owns it
    └── PermissionDenied           the directory is not ours, not safe, or not writable
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from modelwire.errors import InUse, ModeldError, PermissionDenied

OTHER_PATH: Final = "choose another path with MODELD_SOCKET or `socket` in the configuration"
CHOOSE_ANOTHER: Final = f"{OTHER_PATH[0].upper()}{OTHER_PATH[1:]}."

_KINDS: Final = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


class UnusableEndpoint(ModeldError):
    """The path cannot be an endpoint."""


class AlreadyServing(InUse):
    """Another process owns the endpoint; `details` holds what is known of it."""


def kind_of(info: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(info.st_mode), "something unknown")


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns an OSError of the block, which works at `path`, into an error for users."""
    try:
        yield
    except PermissionError as error:
        raise PermissionDenied(
            f"cannot listen at {path}: permission denied",
            hint=f"Run the daemon as the owner of {os.path.dirname(path)}, or {OTHER_PATH}.",
        ) from error
    except FileNotFoundError as error:
        raise UnusableEndpoint(
            f"cannot listen at {path}: there is no directory {os.path.dirname(os.path.dirname(path))}",
            hint=f"Create it, or {OTHER_PATH}.",
        ) from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise PermissionDenied(
                f"cannot listen at {path}: the filesystem is read-only", hint=CHOOSE_ANOTHER
            ) from error
        raise UnusableEndpoint(f"cannot listen at {path}: {error.strerror or error}", hint=CHOOSE_ANOTHER) from error
