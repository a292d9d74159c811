"""A store that other tools fill: manifests and blobs without a daemon."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from modeld.store.digest import Digest
from modeld.store.disk.listing import SETTLED_NS
from modeld.store.disk.root import prepare_root
from modeld.store.manifests.index import Index
from modeld.store.names import ModelName


class Shelf:
    """A store that other tools fill."""

    def __init__(self, root: Path) -> None:
        self.layout = prepare_root(str(root))
        self.index = Index(self.layout)

    def blob(self, digest: Digest, content: bytes) -> str:
        path = self.layout.blob(digest)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).write_bytes(content)
        return path

    def put(self, name: str, content: bytes = b"bytes", **changes: Any) -> str:
        """The manifest's path; the digest is made of the content's first byte."""
        digest = Digest(f"{content[0]:02x}" * 32)
        self.blob(digest, content)
        document = {"schema_version": 1, "blob": digest.text, "size_bytes": len(content), "name": name, **changes}
        return self.put_file(ModelName.parse(name).stem, json.dumps(document).encode())

    def put_file(self, stem: str, content: bytes) -> str:
        path = f"{self.layout.manifests_dir}/{stem}.json"
        temporary = f"{self.layout.root}/temporary"
        Path(temporary).write_bytes(content)
        os.rename(temporary, path)
        return path

    def age(self) -> None:
        """As if everything had been written long ago: then it is remembered."""
        past = time.time_ns() - 100 * SETTLED_NS
        for path in [*Path(self.layout.manifests_dir).iterdir(), Path(self.layout.manifests_dir)]:
            os.utime(path, ns=(past, past))
        deadline = time.monotonic() + 10
        # The change time cannot be set, only waited for.
        while time.time_ns() - os.stat(self.layout.manifests_dir).st_ctime_ns <= SETTLED_NS:
            assert time.monotonic() < deadline
