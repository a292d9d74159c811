"""Every producer of staged files, with the same contents: what the suite of the seam runs over."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from modeld.progress import FileProgress
from modeld.store.blobs.linked import Linked
from modeld.store.digest import Digest
from modeld.store.ingest.adopt import How, stage_adopted
from modeld.store.ingest.collect import collect
from modeld.store.ingest.commit import Batch
from modeld.store.ingest.copying import Source, stage_copy
from modeld.store.ingest.readers import Reader
from rigs.chaos_server import Chaos
from rigs.download_rig import Rig

BIG = b"GGUF" + bytes(5 << 20)
ONE = {"model.gguf": BIG}
SHARDS = {f"m-{number:05d}-of-00003.gguf": b"GGUF shard %d" % number for number in (1, 2, 3)}
MANY = {
    **{f"{number % 3}/f{number:02d}.safetensors": b"weights %02d" % number for number in range(12)},
    "big.gguf": BIG,
    "same.safetensors": b"weights 00",
}


class Place:
    """A store and the producers' sources beside it."""

    def __init__(self, directory: Path) -> None:
        self.rig = Rig(str(directory / "root"))
        self.layout, self.space = self.rig.layout, self.rig.space
        os.makedirs(self.layout.staging)
        self.linked = Linked(self.layout)
        self.sources = directory / "sources"
        self.contents: dict[str, bytes] = {}

    @property
    def digests(self) -> set[Digest]:
        return {Digest(hashlib.sha256(content).hexdigest()) for content in self.contents.values()}

    def fill(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        for name, content in contents.items():
            path = self.sources / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            path.chmod(0o640)

    def at_source(self) -> dict[str, tuple[bytes, int, int]]:
        found = (path for path in self.sources.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.sources)): (path.read_bytes(), path.stat().st_mode & 0o777, path.stat().st_nlink)
            for path in found
        }

    def blobs(self) -> set[bytes]:
        return {path.read_bytes() for path in Path(self.layout.blobs_dir).glob("??/*/data")}

    def leftovers(self) -> list[str]:
        """Files under the root that are neither blobs nor what belongs to them."""
        found = []
        for folder, _, names in os.walk(self.layout.root):
            own = folder.startswith((f"{self.layout.private}/blocks", self.layout.linked, self.layout.quarantine_dir))
            found += [] if own else [f"{folder}/{name}" for name in names if name != "data"]
        return found

    def batch(self) -> Batch:
        return Batch(self.layout, len(self.contents))


Producer = Callable[[Place, Batch], None]
"""Stages all contents anew, each into the batch."""


def _local(contents: dict[str, bytes], how: How) -> Producer:
    def stage(place: Place, batch: Batch) -> None:
        place.fill(contents)
        path = place.sources if len(contents) > 3 else place.sources / next(iter(contents))
        collection = collect(str(path), how, Reader(), place.layout)
        try:
            for part in collection.parts:
                descriptor = collection.open(part)
                try:
                    source = Source.of(descriptor, collection.where(part))
                    if how == "copy":
                        sync = batch.syncs_alone(part.signature.size)
                        staged = stage_copy(place.layout, source, space=place.space, progress=FileProgress(), sync=sync)
                    else:
                        adopted = stage_adopted(
                            place.layout,
                            source,
                            how=how,
                            requester_uid=os.geteuid(),
                            expected=None,
                            space=place.space,
                            progress=FileProgress(),
                            linked=place.linked,
                        )
                        assert adopted is not None
                        staged = adopted
                finally:
                    os.close(descriptor)
                batch.take(staged)
        finally:
            collection.close()

    return stage


def _download(place: Place, batch: Batch) -> None:
    place.contents = ONE
    with Chaos(BIG) as server:
        batch.take(place.rig.fetch(place.rig.info(server.url, BIG)))


PRODUCERS: dict[str, tuple[dict[str, bytes], Producer]] = {
    "copy": (ONE, _local(ONE, "copy")),
    "move": (ONE, _local(ONE, "move")),
    "link": (ONE, _local(ONE, "link")),
    "shards": (SHARDS, _local(SHARDS, "copy")),
    "directory": (MANY, _local(MANY, "copy")),
    "moved directory": (MANY, _local(MANY, "move")),
    "linked directory": (MANY, _local(MANY, "link")),
    "download": (ONE, _download),
}
