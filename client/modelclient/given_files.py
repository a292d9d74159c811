"""Small files that a user names: read at once, and explained when they cannot be read."""

from __future__ import annotations

import errno
import sys
from typing import Any

import msgspec

from modelwire.errors import Internal, InvalidRequest, NotFound, PermissionDenied, WireError


def read(path: str, what: str, most: int) -> bytes:
    """At most `most` bytes; `-` is the standard input, and a pipe is read to its end. `what` is a noun for the
    messages. Blocks."""
    try:
        with open(sys.stdin.fileno() if path == "-" else path, "rb", closefd=path != "-") as file:
            return file.read(most)
    except OSError as error:
        raise _unreadable(path, what, error) from None
    except ValueError:  # a NUL
        raise InvalidRequest(f"{path!r} is not a path", hint=f"Give the path of a {what}.") from None


def read_object(path: str, what: str, longest: int, *, of_one: str, otherwise: str) -> dict[str, Any]:
    """A JSON object, as `read`. It may have twice as many bytes as the daemon allows, which counts without spaces.
    `of_one` and `otherwise` are the hints for a file that is too long and for one that has none."""
    data = read(path, what, 2 * longest + 1)
    if len(data) > 2 * longest:
        raise InvalidRequest(f"{path} has more than {2 * longest} bytes", hint=of_one)
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as fault:
        raise InvalidRequest(f"{path} is no JSON object: {fault}", hint=otherwise) from None


def _unreadable(path: str, what: str, error: OSError) -> WireError:
    why = f"the {what} {path} cannot be read: {error.strerror or error}"
    details = {"path": path, "errno": errno.errorcode.get(error.errno or 0, str(error.errno))}
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"there is no {what} {path}", hint="Check the path.", details=details)
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(why, hint="Ask its owner for the right to read it.", details=details)
    if error.errno in (errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):
        return InvalidRequest(why, hint=f"Give the path of a {what}.", details=details)
    return Internal(why, hint="Look at the health of the disk that the file is on.", details=details)
