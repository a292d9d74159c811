"""A blob counts when it is good: recorded as such and unchanged, or hashed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.progress import FileProgress
from modeld.store.blobs.blobs import Blob, find_good, stat_blob, sync_names, verify_blob
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modelwire.errors import Corrupt, NotFound

CONTENT = b"weights" * 1000
DIGEST = Digest(hashlib.sha256(CONTENT).hexdigest())


class Bench:
    """A store with blobs that others left there."""

    def __init__(self, directory: Path) -> None:
        self.layout = Layout(str(directory / "root"))
        os.makedirs(self.layout.blobs_dir)
        self.source = directory / "source"

    def plant(self, content: bytes, digest: Digest = DIGEST) -> str:
        """What another tool, or a fault, left under a blob's name."""
        path = self.layout.blob(digest)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).write_bytes(content)
        return path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    yield Bench(tmp_path)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that were synced, in order."""
    inodes: list[int] = []
    sync_file = durable.sync_file

    def record(descriptor: int) -> None:
        inodes.append(os.fstat(descriptor).st_ino)
        sync_file(descriptor)

    monkeypatch.setattr(durable, "sync_file", record)
    return inodes


def test_bytes_of_another_tool_are_made_durable_before_they_count(bench: Bench, synced: list[int]) -> None:
    inode = os.stat(bench.plant(CONTENT)).st_ino
    assert find_good(bench.layout, DIGEST) is not None
    directories = [
        os.stat(path).st_ino
        for path in (
            os.path.dirname(bench.layout.blob(DIGEST)),
            os.path.dirname(os.path.dirname(bench.layout.blob(DIGEST))),
            bench.layout.blobs_dir,
        )
    ]
    assert synced == [inode]
    sync_names(bench.layout, DIGEST)
    assert synced == [inode, *directories]


def test_nothing_there_is_not_an_error(bench: Bench) -> None:
    assert stat_blob(bench.layout, DIGEST) is None
    assert find_good(bench.layout, DIGEST) is None
    with pytest.raises(NotFound, match=DIGEST.text):
        verify_blob(bench.layout, DIGEST, FileProgress())


def test_verifying_tells_good_from_bad_and_changes_nothing(bench: Bench) -> None:
    path = bench.plant(CONTENT)
    before = Signature.of(os.stat(path))
    verified = verify_blob(bench.layout, DIGEST, FileProgress())
    assert verified.good
    assert verified.blob == Blob(DIGEST, len(CONTENT), path, before)
    bench.plant(b"bad")
    verified = verify_blob(bench.layout, DIGEST, FileProgress())
    assert not verified.good
    assert verified.actual.hex == hashlib.sha256(b"bad").hexdigest()
    assert Path(path).read_bytes() == b"bad"


def test_verifying_does_not_follow_a_link(bench: Bench) -> None:
    path = bench.layout.blob(DIGEST)
    os.makedirs(os.path.dirname(path))
    bench.source.write_bytes(CONTENT)
    os.symlink(bench.source, path)
    with pytest.raises(Corrupt, match="symbolic link"):
        verify_blob(bench.layout, DIGEST, FileProgress())


def test_a_change_during_verification_leaves_a_record_that_does_not_match(bench: Bench) -> None:
    path = bench.plant(CONTENT)

    class Writing(FileProgress):
        def stopped(self) -> bool:
            os.utime(path, ns=(9, 9))
            return False

    verified = verify_blob(bench.layout, DIGEST, Writing())
    assert verified.blob.signature != Signature.of(os.stat(path))
    with pytest.raises(Corrupt, match="changed while it was verified"):
        find_good(bench.layout, DIGEST, progress=Writing())


def test_a_link_that_comes_while_a_blob_is_verified_is_no_change(bench: Bench) -> None:
    """As the adoption of the same bytes, or of the tree of another model, makes and removes them."""
    path = bench.plant(CONTENT)
    links = iter(range(100))

    class Linking(FileProgress):
        def stopped(self) -> bool:
            if (number := next(links)) < 2:
                os.link(path, f"{path}-{number}")
            return False

    found = find_good(bench.layout, DIGEST, progress=Linking())
    assert found is not None
    assert found.signature == Signature.of(os.stat(path))
