"""Only good bytes get a name, and only once; success is never reported for bytes that were not verified."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modeld.progress import FileProgress, Stopped
from modeld.store.blobs import blobs
from modeld.store.blobs.blobs import Blob, find_good, stat_blob
from modeld.store.blobs.hashing import WHOLE
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.ingest.commit import Batch
from modeld.store.ingest.copying import Source, stage_copy
from modeld.store.ingest.staged import Staged
from modelwire.errors import Corrupt, Internal
from rigs.publication_rig import commit

CONTENT = b"weights" * 1000
DIGEST = Digest(hashlib.sha256(CONTENT).hexdigest())


class Bench:
    """A store and a way to stage content into it."""

    def __init__(self, directory: Path) -> None:
        self.layout = Layout(str(directory / "root"))
        os.makedirs(self.layout.blobs_dir)
        self.space = Space(lambda: 1 << 40)
        self.source = directory / "source"

    def stage(self, content: bytes = CONTENT, *, sync: bool = True) -> Staged:
        self.source.write_bytes(content)
        with open(self.source, "rb") as file:
            source = Source.of(file.fileno(), str(self.source))
            return stage_copy(self.layout, source, space=self.space, progress=FileProgress(), sync=sync)

    def plant(self, content: bytes, digest: Digest = DIGEST) -> str:
        """What another tool, or a fault, left under a blob's name."""
        path = self.layout.blob(digest)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).write_bytes(content)
        return path

    def quarantined(self) -> list[bytes]:
        directory = Path(self.layout.quarantine_dir)
        return [path.read_bytes() for path in directory.iterdir()] if directory.exists() else []

    def assert_nothing_staged(self) -> None:
        assert os.listdir(self.layout.staging) == []
        assert self.space.promised == 0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    yield Bench(tmp_path)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"


@pytest.mark.parametrize("content", [b"", CONTENT, os.urandom(WHOLE + 1)])
def test_committed_bytes_are_where_their_digest_says(bench: Bench, content: bytes) -> None:
    staged = bench.stage(content)
    blob, reused = commit(bench.layout, staged)
    assert not reused
    assert blob.path == bench.layout.blob(staged.digest)
    assert Path(blob.path).read_bytes() == content
    status = os.stat(blob.path)
    assert stat.S_IMODE(status.st_mode) == 0o444
    assert status.st_nlink == 1
    assert blob.signature == Signature.of(status)
    assert stat_blob(bench.layout, staged.digest) == blob
    bench.assert_nothing_staged()


def test_the_same_content_again_is_the_same_inode(bench: Bench) -> None:
    first, _ = commit(bench.layout, bench.stage())
    second, reused = commit(bench.layout, bench.stage(), verified=first.signature)
    assert reused
    assert second == first
    bench.assert_nothing_staged()


def test_an_unchanged_verified_blob_is_not_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = commit(bench.layout, bench.stage())
    staged = bench.stage()
    monkeypatch.setattr(blobs, "hash_file", None)
    assert commit(bench.layout, staged, verified=first.signature) == (first, True)
    assert find_good(bench.layout, DIGEST, verified=first.signature) == first


def test_a_blob_of_another_tool_counts_after_it_was_hashed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.plant(CONTENT)
    hashed: list[Digest] = []
    verify_blob = blobs.verify_blob

    def counted(layout: Layout, digest: Digest, progress: FileProgress) -> blobs.Verified:
        hashed.append(digest)
        return verify_blob(layout, digest, progress)

    monkeypatch.setattr(blobs, "verify_blob", counted)
    changed = replace(Signature.of(os.stat(path)), mtime_ns=0)
    blob, reused = commit(bench.layout, bench.stage(), verified=changed)
    assert reused
    assert hashed == [DIGEST]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o444
    assert blob.signature == Signature.of(os.stat(path))
    assert bench.quarantined() == []
    bench.assert_nothing_staged()


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


def test_what_was_staged_without_a_sync_is_synced_before_its_name(bench: Bench, synced: list[int]) -> None:
    staged = bench.stage(sync=False)
    assert synced == []
    blob, _reused = commit(bench.layout, staged)
    assert synced[0] == blob.signature.inode


def test_names_of_blobs_that_a_request_relies_on_are_synced(bench: Bench, synced: list[int]) -> None:
    directory = os.path.dirname(commit(bench.layout, bench.stage())[0].path)
    synced.clear()
    batch = Batch(bench.layout)
    assert batch.settle({}, relied_on={DIGEST}) == {}
    assert synced == [os.stat(path).st_ino for path in (directory, os.path.dirname(directory), bench.layout.blobs_dir)]


@pytest.mark.parametrize("planted", [b"w" * len(CONTENT), b"shorter", b""])
def test_bad_bytes_under_the_name_make_room_for_good_ones(bench: Bench, planted: bytes) -> None:
    path = bench.plant(planted)
    blob, reused = commit(bench.layout, bench.stage())
    assert not reused
    assert Path(path).read_bytes() == CONTENT
    assert blob.path == path
    assert bench.quarantined() == [planted]
    bench.assert_nothing_staged()


def test_wrong_size_is_bad_whatever_is_recorded(bench: Bench) -> None:
    path = bench.plant(b"shorter")
    _blob, reused = commit(bench.layout, bench.stage(), verified=Signature.of(os.stat(path)))
    assert not reused
    assert bench.quarantined() == [b"shorter"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "directory"])
def test_what_is_not_a_file_is_set_aside(bench: Bench, kind: str) -> None:
    path = bench.layout.blob(DIGEST)
    os.makedirs(os.path.dirname(path))
    outside = Path(bench.layout.root, "outside")
    outside.write_bytes(CONTENT)
    if kind == "directory":
        os.mkdir(path)
    else:
        os.symlink(outside if kind == "link" else "nowhere", path)
    with pytest.raises(Corrupt, match="not a regular file"):
        stat_blob(bench.layout, DIGEST)
    blob, reused = commit(bench.layout, bench.stage())
    assert not reused
    assert not os.path.islink(blob.path)
    assert len(os.listdir(bench.layout.quarantine_dir)) == 1
    assert outside.read_bytes() == CONTENT


def test_a_name_whose_durability_is_unknown_stays_and_the_retry_settles_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = bench.stage()

    def fail(_path: str) -> None:
        raise OSError(errno.EIO, "bad disk")

    with monkeypatch.context() as patched:
        patched.setattr(durable, "sync_directory", fail)
        with pytest.raises(Internal, match="sync the directory") as caught:
            commit(bench.layout, staged)
    assert caught.value.retryable
    assert caught.value.details["outcome"] == "unknown"
    assert (caught.value.hint or "").count("send the same request again") == 1
    assert Path(bench.layout.blob(DIGEST)).read_bytes() == CONTENT
    bench.assert_nothing_staged()

    synced: list[str] = []
    sync_directory = durable.sync_directory

    def record(path: str) -> None:
        synced.append(path)
        sync_directory(path)

    monkeypatch.setattr(durable, "sync_directory", record)
    _blob, reused = commit(bench.layout, bench.stage())
    assert reused
    fanout = os.path.dirname(os.path.dirname(bench.layout.blob(DIGEST)))
    assert synced == [os.path.dirname(bench.layout.blob(DIGEST)), fanout, bench.layout.blobs_dir]


def test_many_at_once_make_one_blob(bench: Bench) -> None:
    staged = [bench.stage() for _ in range(8)]
    start = threading.Barrier(len(staged))
    results: list[tuple[Blob, bool]] = []

    def run(one: Staged) -> None:
        start.wait(10)
        results.append(commit(bench.layout, one))

    threads = [threading.Thread(target=run, args=(one,)) for one in staged]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reused for _blob, reused in results) == [False] + [True] * 7
    assert len({blob.signature.inode for blob, _reused in results}) == 1
    bench.assert_nothing_staged()


def test_someone_who_keeps_putting_bad_bytes_there_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.plant(b"bad")
    set_aside = blobs._set_aside

    def spoil(layout: Layout, path: str, *seen: Signature) -> None:
        set_aside(layout, path, *seen)
        bench.plant(b"bad again")

    monkeypatch.setattr(blobs, "_set_aside", spoil)
    staged = bench.stage()
    with pytest.raises(Corrupt, match="taken by bad bytes again"):
        commit(bench.layout, staged)
    bench.assert_nothing_staged()


def test_stopping_while_an_unverified_blob_is_hashed(bench: Bench) -> None:
    bench.plant(CONTENT)
    staged = bench.stage()

    class Unwanted(FileProgress):
        def stopped(self) -> bool:
            return True

    with pytest.raises(Stopped):
        commit(bench.layout, staged, progress=Unwanted())
    bench.assert_nothing_staged()
    assert Path(bench.layout.blob(DIGEST)).read_bytes() == CONTENT
