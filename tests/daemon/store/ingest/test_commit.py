"""A batch is many single adds: the same names, the same checks, only the syncs are shared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modeld.platform import durable as calls
from modeld.progress import FileProgress
from modeld.store.blobs.blobs import stat_blob
from modeld.store.blobs.hashing import WHOLE
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import FilesystemSync
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.ingest.commit import TOGETHER_FROM, Batch, Committed
from modeld.store.ingest.copying import Source, stage_copy
from modelwire.errors import DigestMismatch
from rigs.publication_rig import settle_and_commit

MANY = 20
"""Enough for a batch to sync them together."""


class Bench:
    def __init__(self, directory: Path) -> None:
        self.layout = Layout(str(directory / "root"))
        os.makedirs(self.layout.blobs_dir)
        os.makedirs(self.layout.staging)
        self.space = Space(lambda: 1 << 40)
        self.sources = directory / "sources"
        self.sources.mkdir()

    @contextmanager
    def batch(self, count: int = MANY) -> Iterator[Batch]:
        batch = Batch(self.layout, count)
        try:
            yield batch
        finally:
            batch.discard()

    def stage(self, batch: Batch, content: bytes, expected: Digest | None = None) -> Digest:
        path = self.sources / str(len(os.listdir(self.sources)))
        path.write_bytes(content)
        with open(path, "rb") as file:
            staged = stage_copy(
                self.layout,
                Source.of(file.fileno(), str(path)),
                expected=expected,
                space=self.space,
                progress=FileProgress(),
                sync=batch.syncs_alone(len(content)),
            )
        batch.take(staged)
        return staged.digest

    def add(self, *contents: bytes) -> list[Committed]:
        """What became of each content."""
        with self.batch(len(contents)) as batch:
            digests = [self.stage(batch, content) for content in contents]
            committed = settle_and_commit(batch)
            return [committed[digest] for digest in digests]

    def assert_nothing_staged(self) -> None:
        assert os.listdir(self.layout.staging) == []
        assert self.space.promised == 0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    yield Bench(tmp_path)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"


@pytest.fixture(params=[True, False], ids=["together", "one by one"])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the filesystem can be synced as a whole; which of both happened is checked at the end."""
    if not request.param:
        monkeypatch.setattr(durable, "MAX_FOREIGN_DIRTY", -1)
    return bool(request.param)


@pytest.mark.parametrize("count", [0, 1, TOGETHER_FROM, 50])
@pytest.mark.usefixtures("together")
def test_every_file_gets_its_name_in_order(bench: Bench, count: int) -> None:
    contents = [os.urandom(100 + index) for index in range(count)]
    results = bench.add(*contents)
    assert [each.reused for each in results] == [False] * count
    for (blob, *_), content in zip(results, contents, strict=True):
        assert blob.digest.hex == hashlib.sha256(content).hexdigest()
        assert Path(blob.path).read_bytes() == content
        assert blob.signature == Signature.of(os.stat(blob.path))
        assert os.stat(blob.path).st_mode & 0o777 == 0o444
    bench.assert_nothing_staged()


def test_a_filesystem_is_synced_twice_for_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, whole = [], []
    sync_file, sync = durable.sync_file, FilesystemSync.sync

    def one(descriptor: int) -> None:
        synced.append(descriptor)
        sync_file(descriptor)

    def everything(self: FilesystemSync) -> bool:
        whole.append(sync(self))
        return whole[-1]

    monkeypatch.setattr(calls, "dirty_bytes", lambda: 0)
    monkeypatch.setattr(durable, "sync_file", one)
    monkeypatch.setattr(FilesystemSync, "sync", everything)
    bench.add(*(os.urandom(10) for _ in range(30)))
    if whole == [False, False]:
        pytest.skip("this kernel does not tell what was lost")
    assert whole == [True, True]
    assert synced == []


def test_much_unwritten_by_others_is_not_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    sync_file = durable.sync_file

    def one(descriptor: int) -> None:
        synced.append(descriptor)
        sync_file(descriptor)

    monkeypatch.setattr(calls, "dirty_bytes", lambda: durable.MAX_FOREIGN_DIRTY + 1)
    monkeypatch.setattr(durable, "sync_file", one)
    bench.add(*(os.urandom(10) for _ in range(10)))
    assert len(synced) == 10 + 10 * 3


def test_without_an_answer_there_may_be_much(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 <= calls.dirty_bytes() < 1 << 60

    def refuse(*_arguments: object, **_named: object) -> None:
        raise PermissionError

    monkeypatch.setattr("builtins.open", refuse)
    assert calls.dirty_bytes() > durable.MAX_FOREIGN_DIRTY


@pytest.mark.usefixtures("together")
def test_equal_content_is_one_blob(bench: Bench) -> None:
    results = bench.add(b"a", b"b", b"a", b"a")
    assert [each.reused for each in results] == [False] * 4
    assert results[0].blob == results[2].blob == results[3].blob
    assert len(list(Path(bench.layout.blobs_dir).glob("*/*/data"))) == 2
    again = bench.add(b"b", b"c")
    assert [each.reused for each in again] == [True, False]
    bench.assert_nothing_staged()


def test_big_files_are_synced_at_once(bench: Bench) -> None:
    with bench.batch() as batch:
        content = os.urandom(WHOLE + 1)
        digest = bench.stage(batch, content)
        assert batch.staged[0].synced
        bench.stage(batch, b"small")
        assert not batch.staged[1].synced
        settle_and_commit(batch)
    blob = stat_blob(bench.layout, digest)
    assert blob is not None
    assert blob.size == len(content)


def test_leaving_without_a_commit_leaves_nothing(bench: Bench) -> None:
    with bench.batch() as batch:
        digest = bench.stage(batch, b"one")
        with pytest.raises(DigestMismatch):
            bench.stage(batch, b"two", expected=Digest("ab" * 32))
        assert len(os.listdir(bench.layout.staging)) == 1
    assert stat_blob(bench.layout, digest) is None
    bench.assert_nothing_staged()
