"""Blobs that rot, and blobs at which modeld has never looked."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


def flip(path: str, at: int) -> None:
    """One bit of the byte there, as a disk does that loses one."""
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.chmod(path, 0o444)


def foreign(root: str, name: str, content: bytes) -> str:
    """A model of another tool, at whose blob nobody has ever looked: it is due from the first moment. Returns the path
    of the blob."""
    digest = hashlib.sha256(content).hexdigest()
    path = Path(root, "blobs", "sha256", digest[:2], digest, "data")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    manifest = {"schema_version": 1, "name": name, "blob": f"sha256:{digest}", "size_bytes": len(content)}
    manifests = Path(root, "manifests")
    manifests.mkdir(exist_ok=True)
    (manifests / f"{name}.json").write_text(json.dumps(manifest))
    return str(path)
