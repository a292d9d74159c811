"""Checks small files by their git SHA-1, which is that of `blob <length>`, a NUL, and the bytes."""

from __future__ import annotations

import hashlib
import hmac

from modeld.download.source import Body
from modelwire.errors import DigestMismatch


class GitBlobBody:
    """The body of a whole file; returns the last bytes only when all of them are those of the commit.

    SHA-1 is enough against accidents: an attacker who controls the hub controls the commit anyway. The store's own
    digest is SHA-256.
    """

    def __init__(self, body: Body, size: int, expected: str, what: str) -> None:
        self.start, self.end, self.total = body.start, body.end, body.total
        self.partial, self.validator = body.partial, body.validator
        self._body = body
        self._size = size
        self._expected = expected
        self._what = what
        self._at = 0
        self._hash = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def readinto(self, into: memoryview) -> int:
        got = self._body.readinto(into)
        self._hash.update(into[:got])
        before, self._at = self._at, self._at + got
        if (self._at >= self._size and before < self._size) or got == 0:
            self._check()
        return got

    def abort(self) -> None:
        self._body.abort()

    def close(self) -> None:
        self._body.close()

    def _check(self) -> None:
        actual = self._hash.hexdigest()
        if self._at == self._size and hmac.compare_digest(actual, self._expected):
            return
        raise DigestMismatch(
            f"{self._what} is not the file of its commit: its git blob is {actual}, {self._expected} was expected",
            hint="A proxy or an outdated mirror serves other bytes. Use another source.",
            details={"expected_git_blob": self._expected, "actual_git_blob": actual},
        )
