"""Lists what is below a prefix of a bucket, in a child process: see `child`. The reader bounds what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from modeld.download.cancel_scope import CancelScope, Overdue
from modeld.platform import polling

COMMAND: Final = (sys.executable, "-P", "-m", "modeld.sources.s3.child")
LONGEST_LINE: Final = 16 * 1024
"""A key has 1,024 bytes, of which JSON may make six times as many."""

_READ: Final = 64 * 1024


class Listed(NamedTuple):
    path: str
    size: int
    etag: str | None


class ListingFault(Exception):
    """The bucket cannot be listed. `status` is that of the refusal, when there is one."""

    def __init__(self, kind: str, status: int | None) -> None:
        super().__init__(kind)
        self.kind = kind
        self.status = status


class _Fault(msgspec.Struct):
    fault: str
    status: int | None = None


_LINE: Final[msgspec.json.Decoder[Listed | _Fault | str]] = msgspec.json.Decoder(Listed | _Fault | str)


def listed(
    bucket: str,
    prefix: str,
    settings: Mapping[str, Any],
    *,
    plain: bool,
    stall_seconds: float,
    seconds: float,
    most: int,
) -> list[Listed]:
    """The objects; one more than `most`, when there are more. Raises ListingFault, Overdue after `seconds`, and
    Stopped."""
    order = {"bucket": bucket, "prefix": prefix, "settings": dict(settings), "plain": plain, "seconds": stall_seconds}
    with (
        CancelScope(seconds) as scope,
        subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, cwd="/"
        ) as child,
    ):
        try:
            with scope.woken_by(child.kill):
                return list(islice(_objects(child, order, scope), most + 1))
        finally:
            child.kill()


def _objects(child: subprocess.Popen[bytes], order: dict[str, Any], scope: CancelScope) -> Iterator[Listed]:
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(order).encode() + b"\n")
    except BrokenPipeError:
        raise ListingFault("the process that lists ended at once", None) from None
    for line in _lines(child.stdout.fileno(), scope):
        found = _LINE.decode(line)
        if isinstance(found, _Fault):
            raise ListingFault(found.fault, found.status)
        if isinstance(found, str):
            return
        yield found
    scope.wait()
    raise ListingFault("the process that lists has ended; a page may have been too long for it", None)


def _lines(descriptor: int, scope: CancelScope) -> Iterator[bytes]:
    rest = b""
    while True:
        if not polling.readable(descriptor, scope.wait()):
            raise Overdue(scope.limit)
        got = os.read(descriptor, _READ)
        if not got:
            return
        *lines, rest = (rest + got).split(b"\n")
        yield from lines
        if len(rest) > LONGEST_LINE:
            raise ListingFault("a key is longer than keys are", None)
