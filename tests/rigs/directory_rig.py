"""A directory that is added to a store of its own, with faults planted in the system calls that change the disk.

`main(DIRECTORY, HOW, N)`, in a process of its own, adds it and dies at the N-th call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import anyio
import pytest

from modeld.config import StoreSettings
from modeld.platform import durable as calls
from modeld.platform import files
from modeld.store import Store, WouldBlock
from modeld.store.blobs.hashing import WHOLE
from modeld.store.catalog.catalog import Catalog
from modeld.store.disk import durable, links
from modeld.store.ingest.adopt import How
from modeld.store.manifests import trees
from modelwire.errors import NotFound
from modelwire.units import Duration, Size
from modelwire.values import Added
from rigs.publication_rig import Faults, FaultyLibc, FaultyOs

FILES = {
    "a-00001-of-00002.gguf": b"GGUF one",
    "a-00002-of-00002.gguf": b"GGUF two",
    "big.bin": bytes(WHOLE + 4097),
    "same.bin": b"GGUF one",
    "sub/config.json": b"{}",
}
SETTINGS = StoreSettings(min_free=Size(0), lock_wait=Duration(5))


class AddedDirectory:
    def __init__(self, directory: Path) -> None:
        self.root = str(directory / "models")
        self.source = directory / "source"
        self.make_source()

    def make_source(self) -> None:
        for name, content in FILES.items():
            path = self.source / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    @contextmanager
    def open(self) -> Iterator[Store]:
        layout, lock = Store.claim(self.root, SETTINGS)
        catalog = Catalog.open(layout.catalog_path)
        store = Store.open(self.root, SETTINGS, catalog, lock=lock, byte_threads=2)
        try:
            yield store
        finally:
            store.close()
            catalog.close()

    def add(self, store: Store, how: How = "copy") -> Added:
        async def add() -> Added:
            return await store.add(str(self.source), name="m", how=how)

        return anyio.run(add)

    def shown(self, store: Store) -> dict[str, bytes] | None:
        """The whole model by the path that is given out; None when there is none."""

        async def resolve() -> str:
            try:
                return store.index.resolve("m").path
            except WouldBlock:
                return (await store.resolver.resolve("m")).path

        try:
            tree = Path(anyio.run(resolve))
        except NotFound:
            return None
        return {str(file.relative_to(tree)): file.read_bytes() for file in tree.rglob("*") if file.is_file()}

    def left_at_source(self) -> dict[str, bytes]:
        files = (file for file in self.source.rglob("*") if file.is_file())
        return {str(file.relative_to(self.source)): file.read_bytes() for file in files}

    def temporaries(self) -> list[str]:
        return os.listdir(f"{self.root}/.modeld/staging")


def plant(monkeypatch: pytest.MonkeyPatch, faults: Faults) -> None:
    for module in (durable, calls, files, links, trees):
        monkeypatch.setattr(module, "os", FaultyOs(faults))
    monkeypatch.setattr(calls, "_LIBC", FaultyLibc(calls._LIBC, faults))


def main(directory: str, how: str, nth: str) -> None:
    added = AddedDirectory(Path(directory))
    with added.open() as store:
        faults = Faults(int(nth), lambda _name: os._exit(137))
        faulty_os = FaultyOs(faults)
        for module in (durable, calls, files, links, trees):
            vars(module)["os"] = faulty_os
        vars(calls)["_LIBC"] = FaultyLibc(calls._LIBC, faults)
        added.add(store, cast("How", how))
