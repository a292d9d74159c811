"""What an add makes readable: a blob is for everybody who can enter the store, whatever the mode of its source was."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from modelclient.local_files import files_at
from modelwire.errors import InvalidRequest


def newly_readable(path: str, store: str) -> str | None:
    """A sentence that names a file that others cannot read now by its mode, and who will read it in the store; None
    when there is no such file."""
    with suppress(OSError):
        blobs = os.path.realpath(os.path.join(store, "blobs"))
        mode, group = os.stat(blobs).st_mode, os.stat(blobs).st_gid
        if _all_may_enter(blobs):
            readers, private = "others on this machine", _private(path, None)
        elif mode & stat.S_ISGID and mode & stat.S_IXGRP:
            readers, private = f"users of the group {group}", _private(path, group)
        else:
            return None
        if private is not None:
            return f"{readers} will be able to read {private} in the store, although its mode does not let them now"
    return None


def _all_may_enter(directory: str) -> bool:
    while os.stat(directory).st_mode & stat.S_IXOTH:
        above = os.path.dirname(directory)
        if above == directory:
            return True
        directory = above
    return False


def _private(path: str, group: int | None) -> str | None:
    """The first file that is not for everybody, nor for the group."""
    with suppress(OSError, InvalidRequest):  # the add reports it
        for file in files_at(path):
            status = os.stat(file.path)
            shared = status.st_mode & stat.S_IROTH or (status.st_mode & stat.S_IRGRP and status.st_gid == group)
            if stat.S_ISREG(status.st_mode) and not shared:
                return file.path
    return None
