"""Two ways to recognise content: its SHA-256, and the stat signature of the file that has it."""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass
from typing import Final

from modelwire.errors import InvalidDigest

HEX_LENGTH = 64
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PREFIX = "sha256:"


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256 as 64 lowercase hex characters; no other spelling can exist, so equal content has one path."""

    hex: str

    def __post_init__(self) -> None:
        if _HEX.fullmatch(self.hex):
            return
        if len(self.hex) != HEX_LENGTH:
            raise InvalidDigest(
                f"a SHA-256 digest has {HEX_LENGTH} hex characters, this one has {len(self.hex)}: {self.hex[:80]!r}",
                hint="Give the full digest, with or without `sha256:` before it.",
                details={"rule": "length", "length": len(self.hex)},
            )
        stranger = next(character for character in self.hex if character not in "0123456789abcdef")
        raise InvalidDigest(
            f"a SHA-256 digest is written with 0-9 and a-f only, this one contains {stranger!r}: {self.hex!r}",
            hint="Write it in lowercase." if stranger in "ABCDEF" else None,
            details={"rule": "alphabet", "character": stranger},
        )

    @classmethod
    def parse(cls, text: str) -> Digest:
        """From `<64 hex>` or `sha256:<64 hex>`; InvalidDigest names the rule that is broken."""
        algorithm, colon, rest = text.partition(":")
        if not colon:
            return cls(text)
        if algorithm != "sha256":
            raise InvalidDigest(
                f"the digest algorithm {algorithm[:80]!r} is not known; only sha256 is",
                hint="Give the SHA-256 of the file.",
                details={"rule": "algorithm", "algorithm": algorithm[:80]},
            )
        return cls(rest)

    @property
    def text(self) -> str:
        return _PREFIX + self.hex

    def matches(self, other: Digest) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(self.hex, other.hex)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Signature:
    """What stat reports of a file. A program that changes the bytes, and does not forge times, changes it too."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @classmethod
    def parse(cls, text: str) -> Signature:
        """From `text`."""
        return cls(*map(int, text.split(":")))

    @property
    def text(self) -> str:
        """For a table: inode and device numbers use all 64 bits on some filesystems, SQLite's integers 63."""
        return ":".join(map(str, (self.device, self.inode, self.size, self.mtime_ns, self.ctime_ns)))

    def is_unchanged(self, now: Signature) -> bool:
        """Whether the file is as it was. The number of its device may be another after each start of the machine."""
        return (
            self.ctime_ns == now.ctime_ns
            and self.mtime_ns == now.mtime_ns
            and self.size == now.size
            and self.inode == now.inode
        )

    def only_links_changed(self, after: Signature) -> bool:
        """Whether only the number of links changed: a write changes mtime too, a new link only ctime."""
        return (self.device, self.inode, self.size, self.mtime_ns) == (
            after.device,
            after.inode,
            after.size,
            after.mtime_ns,
        )


@dataclass(frozen=True, slots=True)
class Relinked:
    """A blob that the store gave a link or took one from: its bytes are the same, its signature is not."""

    before: Signature
    after: Signature


NO_FILE: Final = Signature(0, 0, -1, 0, 0)
"""The signature that no file has."""
