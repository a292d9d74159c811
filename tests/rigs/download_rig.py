"""A store, a client and a source over plain addresses: what a test of the transfer starts from.

Also a program, to be killed in mid-transfer: `python rig.py ROOT URL SIZE DIGEST`.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace

from modeld.download.engine.assembly import Fetched
from modeld.download.engine.downloads import Transfer
from modeld.download.http.client import HttpClient
from modeld.download.routes.condemned import Condemned
from modeld.download.routes.events import TransferEvent
from modeld.download.routes.router import Described, Route
from modeld.download.source import Body, Description, FileInfo
from modeld.download.tuning import MIB, Tuning
from modeld.store.blobs.blobs import Blob
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from rigs.publication_rig import commit
from rigs.watcher import Watcher

SIZE = 8 * MIB + 12345
"""Many of the small segments that tests use, and no round number."""

QUICK = Tuning(
    connect_seconds=5,
    stall_seconds=0.5,
    first_delay_seconds=0.01,
    longest_delay_seconds=0.05,
    poll_seconds=0.01,
    journal_seconds=0.05,
    breaker_seconds=0.1,
    segment_bytes=MIB // 4,
    unjournalled_bytes=MIB // 2,
)


def quick(connections: int = 2) -> Tuning:
    return replace(QUICK, first_connections=connections, connections_per_file=connections)


def content_of(size: int = SIZE, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


class Plain:
    """The smallest source: a reference is a described file."""

    def __init__(self, client: HttpClient, name: str = "plain") -> None:
        self.name = name
        self._client = client

    def origin(self, reference: FileInfo) -> str | None:
        return reference.origin

    def describe(self, reference: FileInfo) -> Description:
        return Description(source=self.name, files=(reference,), registry="test")

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:
        return self._client.open_range(file.locator, file, start, end, validator)


class Elsewhere(Plain):
    """Describes the same file at another address: a mirror, or an origin."""

    def __init__(self, client: HttpClient, name: str, url: str, **told: object) -> None:
        super().__init__(client, name)
        self._url = url
        self._told = told

    def origin(self, reference: FileInfo) -> str | None:
        return self._client.parse(self._url).origin

    def describe(self, reference: FileInfo) -> Description:
        file = replace(reference, locator=self._url, origin=self.origin(reference), **self._told)  # type: ignore[arg-type]
        return Description(source=self.name, files=(file,), registry="test")


def leave(fetched: Fetched) -> None:
    """As a process that ends before it commits the file."""
    fetched.reservation.release()
    fetched.partial.close()


class Rig:
    def __init__(self, root: str, tuning: Tuning = QUICK, condemned: Condemned | None = None) -> None:
        os.makedirs(f"{root}/blobs/sha256", exist_ok=True)
        self.layout = Layout(root)
        self.space = Space(lambda: 1 << 50)
        self.client = HttpClient(environ={}, tuning=tuning)
        self.transfer = Transfer(self.layout, self.space, tuning=tuning, condemned=condemned)
        self.events: list[TransferEvent] = []

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def info(self, url: str, content: bytes | None = None, **more: object) -> FileInfo:
        """With size and digest of the content, where it is given."""
        return FileInfo(
            path="model.gguf",
            locator=f"{url}/model.gguf",
            size=None if content is None else len(content),
            digest=None if content is None else digest_of(content),
            origin=self.client.parse(url).origin,
            **more,  # type: ignore[arg-type]
        )

    def described(self, file: FileInfo, sources: Iterable[Plain] = ()) -> Described[FileInfo]:
        route = Route(file, [*sources] or [Plain(self.client)])
        return self.transfer.router.describe(route, on_event=self.events.append)

    def fetch(
        self,
        file: FileInfo,
        *,
        sources: Iterable[Plain] = (),
        expected: Digest | None = None,
        watcher: Watcher | None = None,
    ) -> Fetched:
        described = self.described(file, sources)
        (progress,) = (watcher or Watcher()).files([file.size])
        return self.transfer.fetch_file(
            described, file, expected=expected, progress=progress, on_event=self.events.append
        )

    def commit(self, fetched: Fetched) -> tuple[Blob, bool]:
        return commit(self.layout, fetched)

    def only_partial(self) -> bool:
        """Whether nothing is left beside blobs but what the file is resumed from: its bytes and its journal."""
        return {os.path.basename(os.path.dirname(path))[:7] for path in self.leftovers()} <= {"sha256-"}

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def leftovers(self) -> list[str]:
        """Files under the root that are neither blobs nor what belongs to them."""
        found = []
        for folder, _, names in os.walk(self.layout.root):
            found += [f"{folder}/{name}" for name in names if name != "data" and "/.modeld/blocks/" not in folder]
        return found


def own_threads() -> set[threading.Thread]:
    return {
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("modeld-") and thread is not threading.current_thread()
    }


def main() -> None:
    root, url, size, digest, connections = sys.argv[1:]
    with Rig(root, replace(quick(int(connections)), stall_seconds=20)) as rig:
        file = replace(rig.info(url), size=int(size), digest=None if digest == "-" else Digest(digest))
        if digest == "-":
            file = replace(file, validator='"one"')
        fetched = rig.fetch(file)
        rig.commit(fetched)
        print(fetched.digest.hex, flush=True)


if __name__ == "__main__":
    main()
