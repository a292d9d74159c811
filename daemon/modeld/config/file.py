"""Finds, reads and parses the configuration file."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from typing import Any, Final

from modeld.config.errors import ConfigError

MAX_FILE_BYTES: Final = 1 << 20
"""A thousand users with a role each take 30 KiB; a file beyond a mebibyte is not a configuration."""

_PLACE: Final = re.compile(r"(.*) \(at (?:(line \d+, column \d+)|end of document)\)", re.DOTALL)


def first_file(paths: Sequence[str], *, explicit: bool) -> tuple[str | None, dict[str, Any]]:
    """The path and the content of the first file that exists; None and nothing when there is none.

    With `explicit`, a missing file is an error. A file that exists must be readable: without it the daemon would run
    with other limits and rights than its operator wrote down.
    """
    for candidate in paths:
        path = os.path.abspath(os.path.expanduser(candidate))
        try:
            return path, _parse(path, _read(path))
        except (FileNotFoundError, NotADirectoryError) as error:
            if explicit:
                raise ConfigError(f"{path}: no such configuration file") from error
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be read: {(error.strerror or str(error)).lower()}",
                hint="Make it a regular file that the daemon's user can read, or remove it.",
            ) from error
    return None, {}


def _read(path: str) -> bytes:
    # O_NONBLOCK: a FIFO in the file's place must not keep the daemon from starting.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        # /dev/null is the customary path for "no configuration".
        if not stat.S_ISREG(os.fstat(fd).st_mode) and os.path.realpath(path) != os.devnull:
            raise OSError(errno.EINVAL, "it is not a regular file")
        chunks, size = [], 0
        while chunk := os.read(fd, MAX_FILE_BYTES):
            size += len(chunk)
            if size > MAX_FILE_BYTES:
                raise OSError(errno.EFBIG, f"it is larger than {MAX_FILE_BYTES} bytes")
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def _parse(path: str, content: bytes) -> dict[str, Any]:
    import tomllib  # imported only when there is a file

    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        match = _PLACE.fullmatch(str(error))
        reason = " ".join((match[1] if match else str(error)).split())
        last = content.count(b"\n") + 1
        place = (match[2] if match else None) or f"line {last}, at the end"
        raise ConfigError(f"{path}: {place}: {reason}", hint="Correct the file: it must be TOML.") from error
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
