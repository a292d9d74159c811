"""A store of every kind of thing, that is to move; readers who watch it; and what must hold wherever it is.

Also a program: `python moving_rig.py ROOT TARGET` opens the store at ROOT and moves it, which a test kills.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from modeld.config import StoreSettings
from modeld.progress import JobProgress
from modeld.store import Store, WouldBlock
from modeld.store.catalog.catalog import Catalog
from modelwire.units import Duration, Size
from modelwire.values import Relocated

SETTINGS = StoreSettings(min_free=Size(0), lock_wait=Duration(1), grace=Duration(0))

KEPT_DOWNLOAD = "1f" * 32


@asynccontextmanager
async def nobody_else() -> AsyncIterator[None]:
    """A store that only the mover uses is its own already."""
    yield


@contextmanager
def opened(root: str) -> Iterator[Store]:
    layout, lock = Store.claim(root, SETTINGS)
    catalog = Catalog.open(layout.catalog_path)
    try:
        store = Store.open(root, SETTINGS, catalog, lock=lock)
        try:
            yield store
        finally:
            store.close()
    finally:
        catalog.close()


async def move(store: Store, target: str, progress: JobProgress | None = None) -> Relocated:
    return await store.mover.move(target, alone=nobody_else, order=0, progress=progress or JobProgress())


async def path_of(store: Store, name: str) -> str:
    """Of a model whose tree was made a moment ago, after a second look at it."""
    try:
        return (await store.look_up(name)).path
    except WouldBlock:
        return (await store.resolver.resolve(name)).path


async def fill(store: Store, sources: str) -> dict[str, bytes]:
    """Models of one file and of several, one with two names; an unfinished download; bytes in quarantine. Returns the
    content of the models."""
    contents = {"big": os.urandom(5 << 20), "small": b"GGUF small", "same": b"GGUF small"}
    for name, content in contents.items():
        path = os.path.join(sources, f"{name}.gguf")
        with open(path, "wb") as file:
            file.write(content)
        await store.add(path, name=name)
    directory = os.path.join(sources, "several")
    os.makedirs(os.path.join(directory, "inner"))
    for path, content in (("weights.gguf", b"GGUF several"), ("inner/config.json", b"{}")):
        with open(os.path.join(directory, path), "wb") as file:
            file.write(content)
    await store.add(directory, name="several")
    await store.resolver.resolve("several")
    contents["several"] = b"GGUF several"
    partial = os.path.join(store.layout.keyed_partials, f"sha256-{KEPT_DOWNLOAD}")
    os.makedirs(partial)
    with open(os.path.join(partial, "data.tmp"), "wb") as file:
        file.truncate(8 << 20)
        file.seek(6 << 20)
        file.write(b"arrived")
    with open(os.path.join(store.layout.quarantine_dir, "20260101T000000Z-corrupt-blob.bin"), "wb") as file:
        file.write(b"bad")
    return contents


def faults(root: str, contents: dict[str, bytes]) -> list[str]:
    """What a reader who needs no daemon finds wrong: each manifest, each blob, the tree, the download."""
    found = []
    for name, content in contents.items():
        try:
            with open(f"{root}/manifests/{name}.json", "rb") as file:
                blob = json.load(file)["blob"].removeprefix("sha256:")
            with open(f"{root}/blobs/sha256/{blob[:2]}/{blob}/data", "rb") as file:
                if file.read() != content:
                    found.append(f"{name} has other bytes")
        except FileNotFoundError as fault:
            found.append(f"{name}: {fault}")
    for directory, _, names in os.walk(f"{root}/.modeld/trees/several"):
        if "weights.gguf" in names:
            with open(f"{directory}/weights.gguf", "rb") as file:
                if file.read() != contents["several"]:
                    found.append("the tree has other bytes")
            break
    else:
        found.append("there is no tree")
    try:
        with open(f"{root}/.modeld/partials/sha256-{KEPT_DOWNLOAD}/data.tmp", "rb") as file:
            content = file.read()
            if len(content) != 8 << 20 or content[6 << 20 :].rstrip(b"\0") != b"arrived":
                found.append("the download has other bytes")
    except FileNotFoundError as fault:
        found.append(str(fault))
    return found


@dataclass
class Readers:
    """Threads that read all models by path, as other tools do, all the time."""

    root: str
    contents: dict[str, bytes]
    wrong: list[str] = field(default_factory=list)
    rounds: int = 0

    def __enter__(self) -> Readers:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read) for _ in range(2)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        while not self._stop.is_set():
            self.wrong += faults(self.root, self.contents)
            self.rounds += 1


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _main(root: str, target: str) -> None:
    with opened(root) as store:
        if not store.mover.took_place(target):
            await move(store, target)
        print("moved", flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
