"""A store with its catalogue, models in it, and ways to spoil them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from modeld.config import StoreSettings
from modeld.store import Store
from modeld.store.catalog.catalog import Catalog
from modeld.store.digest import Digest
from modeld.store.publish.name_locks import alone
from modelwire.units import Duration, Size
from modelwire.values import Added, Swept, Value

SETTINGS = StoreSettings(min_free=Size(0), lock_wait=Duration(5), grace=Duration(0))

DAY = 86_400.0


class Bench:
    def __init__(self, directory: Path, settings: StoreSettings = SETTINGS, *, byte_threads: int | None = None) -> None:
        self.directory = directory
        self.root = str(directory / "models")
        self._settings = settings
        self._byte_threads = byte_threads
        self.open()

    def open(self) -> None:
        self.layout, lock = Store.claim(self.root, self._settings)
        self.catalog = Catalog.open(self.layout.catalog_path)
        self.store = Store.open(self.root, self._settings, self.catalog, lock=lock, byte_threads=self._byte_threads)

    def close(self) -> None:
        self.store.close()
        self.catalog.close()

    def reopen(self) -> None:
        self.close()
        self.open()

    async def add(self, name: str, content: bytes = b"GGUF weights", **options: Any) -> Added:
        path = self.directory / "source.gguf"
        path.write_bytes(content)
        return await self.store.add(str(path), name=name, **options)

    async def add_own(self, name: str, content: bytes) -> Added:
        """From a file of its own, for several at a time."""
        path = self.directory / f"{name}.gguf"
        path.write_bytes(content)
        return await self.store.add(str(path), name=name)

    def write_manifest(self, name: str, contents: dict[str, bytes], **more: Any) -> None:
        """A model of several files, as another tool would have made it."""
        files = []
        for path, content in contents.items():
            digest = self.plant(content)
            files.append({"path": path, "blob": digest.text, "size_bytes": len(content), "role": "weights"})
        document = {
            "schema_version": 1,
            "name": name,
            "format": "safetensors",
            "blob": files[0]["blob"],
            "size_bytes": files[0]["size_bytes"],
            "license": None,
            "source": {"registry": "", "repo": "", "revision": "", "filename": ""},
            "produced_by": "other/1",
            "produced_at": "2026-01-01T00:00:00Z",
            "files": files,
            **more,
        }
        Path(self.manifest(name)).write_text(json.dumps(document))

    def plant(self, content: bytes) -> Digest:
        digest = Digest(hashlib.sha256(content).hexdigest())
        path = Path(self.layout.blob(digest))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
        return digest

    def manifest(self, name: str) -> str:
        return f"{self.layout.manifests_dir}/{name.replace(':', '+')}.json"

    def document(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(Path(self.manifest(name)).read_bytes())
        return document

    def spoil(self, path: str, content: bytes = b"XXXX") -> None:
        os.chmod(path, 0o644)
        with open(path, "r+b") as file:
            file.write(content)

    def flip(self, path: str, at: int) -> None:
        """One bit of the byte there."""
        with open(path, "rb") as file:
            file.seek(at)
            byte = file.read(1)[0]
        os.chmod(path, 0o644)
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes([byte ^ 0x10]))

    def names(self) -> list[str]:
        return [view.name for view in self.store.index.page(None, None).models]

    def blobs(self) -> list[str]:
        return sorted(str(path) for path in Path(self.layout.blobs_dir).glob("*/*/data"))

    def staged(self) -> list[str]:
        return os.listdir(self.layout.staging)

    def quarantined(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in Path(self.layout.quarantine_dir).iterdir())

    def ages(self, path: str, seconds: float) -> None:
        """As if it had last been written so long ago; the time of its change cannot be set."""
        moment = os.lstat(path).st_mtime - seconds
        os.utime(path, (moment, moment), follow_symlinks=False)


class RecordedNotes:
    """Stands in for a job: records each note and the names that were visible then."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.calls: list[tuple[str, Value, list[str]]] = []

    waits_for = staticmethod(alone)

    async def about_to_publish(self, value: Value, /) -> None:
        self.calls.append(("about", value, sorted(os.listdir(self._bench.layout.manifests_dir))))

    async def published(self, value: Value, /) -> None:
        self.calls.append(("published", value, sorted(os.listdir(self._bench.layout.manifests_dir))))


def later(bench: Bench, seconds: float) -> None:
    """As if that much time had passed: the time of a file's change cannot be set back."""
    bench.store.sweeper._clock = lambda: time.time() + seconds


def kinds(swept: Swept) -> list[tuple[str, int]]:
    return [(victim.kind, victim.size_bytes) for victim in swept.victims]
