"""What the tests of adding share."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from modeld.config import StoreSettings
from modeld.store import Store
from modeld.store.blobs import blobs
from modeld.store.catalog.catalog import Catalog
from modeld.store.ingest import copying, present
from modeld.store.names import ModelName
from modeld.store.publish.name_locks import alone
from modelwire.errors import Internal
from modelwire.units import Duration, Size
from modelwire.values import Added

SETTINGS = StoreSettings(min_free=Size(0), lock_wait=Duration(5))


class Bench:
    """A store with its catalogue, and files to add."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = str(directory / "models")
        self.open()

    def open(self, settings: StoreSettings = SETTINGS) -> None:
        layout, lock = Store.claim(self.root, settings)
        self.layout = layout
        self.catalog = Catalog.open(layout.catalog_path)
        self.store = Store.open(self.root, settings, self.catalog, lock=lock)

    def close(self) -> None:
        self.store.close()
        self.catalog.close()

    def reopen(self, settings: StoreSettings = SETTINGS) -> None:
        self.close()
        self.open(settings)

    def file(self, name: str = "m.gguf", content: bytes = b"GGUF weights", *, age: float = 3600) -> str:
        path = self.directory / name
        path.write_bytes(content)
        past = time.time_ns() - int(age * 10**9)
        os.utime(path, ns=(past, past))
        return str(path)

    def staged(self) -> list[str]:
        return os.listdir(self.layout.staging)

    def names(self) -> list[str]:
        return [view.name for view in self.store.index.page(None, None).models]

    def blobs(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in Path(self.layout.blobs_dir).glob("*/*/data"))

    def quarantined(self) -> list[bytes]:
        return [path.read_bytes() for path in Path(self.layout.quarantine_dir).iterdir()]

    def assert_nothing_happened(self) -> None:
        assert (self.names(), self.blobs(), self.staged()) == ([], [], [])
        assert self.store.reserved_bytes == 0


class Work:
    """Counts how often bytes are read from sources, and how."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        for module, function in (
            (copying, "stage_copy"),
            (copying, "hash_source"),
            (blobs, "verify_blob"),
            (present, "resembles_one"),
        ):
            self._count(monkeypatch, module, function)

    def _count(self, monkeypatch: pytest.MonkeyPatch, module: Any, function: str) -> None:
        real = getattr(module, function)

        def counted(*arguments: Any, **named: Any) -> object:
            self.done.append(function)
            return real(*arguments, **named)

        monkeypatch.setattr(module, function, counted)

    def since(self) -> list[str]:
        done, self.done = self.done, []
        return done


def settle_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if sources had not changed for hours: the change time of a file cannot be set back."""
    monkeypatch.setattr("modeld.store.catalog.records._SETTLED_NS", -(10**18))


class Notes:
    """Keeps each call and the state of the disk at that time."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.calls: list[tuple[str, bool, bool]] = []
        self.fail_at = ""

    waits_for = staticmethod(alone)

    async def _note(self, what: str, added: Added) -> None:
        manifest = self._bench.layout.manifest(ModelName.parse(added.name))
        self.calls.append((what, os.path.exists(added.path), os.path.exists(manifest)))
        if what == self.fail_at:
            raise Internal(f"{what} failed")

    async def about_to_publish(self, added: Added) -> None:
        await self._note("about", added)

    async def published(self, added: Added) -> None:
        await self._note("published", added)
