"""The root of a site, and what a daemon says of it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from rigs.real_daemon import RealDaemon


class SiteStore:
    """A store as another daemon has left it, in a directory of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, *contents: bytes, **more: Any) -> list[str]:
        digests = [hashlib.sha256(content).hexdigest() for content in contents]
        for digest, content in zip(digests, contents, strict=True):
            data = self.blob(digest)
            data.parent.mkdir(parents=True, exist_ok=True)
            data.write_bytes(content)
            data.chmod(0o444)
        files = [
            {"path": f"part-{number}.gguf", "blob": f"sha256:{digest}", "size_bytes": len(content), "role": "weights"}
            for number, (digest, content) in enumerate(zip(digests, contents, strict=True))
        ]
        document: dict[str, Any] = {
            "schema_version": 1,
            "name": name,
            "format": "gguf",
            "blob": f"sha256:{digests[0]}",
            "size_bytes": len(contents[0]),
            "license": "mit",
            "source": {"registry": "hf", "repo": "org/repo", "revision": "abc", "filename": "m.gguf"},
            "produced_by": "other/1",
            "produced_at": "2026-01-01T00:00:00Z",
        } | ({"files": files} if len(contents) > 1 else {})
        document |= more
        manifest = self.root / "manifests" / f"{name.replace(':', '+')}.json"
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps(document))
        return digests

    def blob(self, digest: str) -> Path:
        return self.root / "blobs" / "sha256" / digest[:2] / digest / "data"

    def picture(self) -> dict[str, tuple[int, int, int, bytes]]:
        """All that may not change: each file with its inode, mode, time and bytes."""
        found = {}
        for directory, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(directory, name)
                info = os.lstat(path)
                found[path] = (info.st_ino, info.st_mode, info.st_ctime_ns, Path(path).read_bytes())
        return found


def value(reply: dict[str, Any]) -> dict[str, Any]:
    assert reply["type"] == "result", reply
    found: dict[str, Any] = reply["value"]
    return found


def listed(daemon: RealDaemon, **how: Any) -> dict[str, str]:
    return {model["name"]: model["state"] for model in value(daemon.ask("model.list", **how))["models"]}


def site_tables(*sites: SiteStore) -> str:
    """The configuration that names them."""
    return "".join(f'[[store.site]]\npath = "{site.root}"\n' for site in sites)
