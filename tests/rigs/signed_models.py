"""The model that the bundles in `daemon/signatures/fixtures` sign, and the bundles with what verifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

FIXTURES: Final = Path(__file__).parent.parent / "daemon" / "signatures" / "fixtures"

MODEL: Final = {
    # By the components of their paths these two are in the other order than by their text.
    "a/config.json": b'{"layers": 2}\n',
    "a-b.txt": b"text\n",
    "empty.txt": b"",
    "weights.bin": bytes(range(256)) + b"end",
    # The length of two shards, and a name in other letters.
    "überall/weights-2.bin": bytes(range(255, -1, -1)),
    ".gitattributes": b"*.bin filter=lfs\n",
    ".github/workflow.yml": b"on: push\n",
    "model.sig": b"a signature beside the model\n",
    "notes/scratch.txt": b"left out\n",
}

ONE_FILE: Final = {"weights.bin": MODEL["weights.bin"]}

SHARD: Final = 128

CURVES: Final = ("p256", "p384", "p521")

AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Within the years of all certificates."""


class Fixture(NamedTuple):
    bundle: str
    trusted: str
    """The name of a key or of a root."""

    files: dict[str, bytes] = MODEL


_OLD_MODEL: Final = {path: content for path, content in MODEL.items() if not path.startswith("notes/")}
"""1.0 does not write into the bundle what it leaves out."""

WITH_KEYS: Final = (
    *(Fixture(f"key-{curve}", curve) for curve in CURVES),
    Fixture("key-shards", "p256"),
    Fixture("key-blake2b", "p256"),
    Fixture("key-blake2b-shards", "p256"),
    Fixture("key-one-file", "p384", ONE_FILE),
    Fixture("key-one-file-shards", "p384", ONE_FILE),
    *(Fixture(f"old-key-{curve}", f"old-{curve}", _OLD_MODEL) for curve in CURVES),
)

WITH_CERTIFICATES: Final = (
    Fixture("certificate", "root"),
    Fixture("certificate-with-root", "root"),
    Fixture("old-certificate", "old-root", _OLD_MODEL),
)


def bundle(name: str) -> bytes:
    return (FIXTURES / f"{name}.json").read_bytes()


def pem(name: str) -> bytes:
    return (FIXTURES / f"{name}.pem").read_bytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Shelf:
    """The files of a model in memory, which are read a few bytes at a time."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.read: list[str] = []

    def chunks_of(self, path: str) -> Iterator[bytes]:
        self.read.append(path)
        content = self.files[path]
        for at in range(0, len(content), 100):
            yield content[at : at + 100]
