"""The seam: whatever produces staged files, they are invisible until the commit, whole after it, gone without it."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from modeld.inspect.inspection import Inspection
from modeld.store.blobs.blobs import Blob
from modeld.store.blobs.block_checksums import load_blocks
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.ingest import commit, look
from modeld.store.ingest.look import look_at
from modelwire.errors import Corrupt, Internal, WireError
from rigs.producers import PRODUCERS, Place, Producer
from rigs.publication_rig import Faults, plant_faults, settle_and_commit

BAD = b"bad"


@pytest.fixture(params=PRODUCERS)
def producer(request: pytest.FixtureRequest) -> Producer:
    return PRODUCERS[request.param][1]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    before = len(os.listdir("/proc/self/fd"))
    made = Place(tmp_path)
    yield made
    made.rig.client.close()
    assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each new content was looked at, by the first bytes of it."""
    seen: Counter[str] = Counter()

    def counted(path: str, origin: str) -> Inspection:
        seen[Path(path).read_bytes()[:16].hex()] += 1
        return look_at(path, origin)

    monkeypatch.setattr(commit, "look_at", counted)
    return seen


def produce(place: Place, producer: Producer) -> list[commit.Committed]:
    batch = place.batch()
    try:
        producer(place, batch)
        return list(settle_and_commit(batch).values())
    finally:
        batch.discard()


def assert_nothing_is_left(place: Place) -> None:
    assert place.leftovers() == []
    assert place.space.promised == 0


def inode_of(place: Place, digest: Digest) -> int:
    return os.stat(place.layout.blob(digest)).st_ino


def test_what_is_staged_is_invisible_and_says_what_it_is(place: Place, producer: Producer) -> None:
    batch = place.batch()
    producer(place, batch)
    assert place.blobs() == set()
    assert {staged.digest for staged in batch.staged} == place.digests
    assert len(batch.staged) == len(place.contents)
    assert place.space.promised == sum(map(len, place.contents.values()))
    for staged in batch.staged:
        assert stat.S_IMODE(os.stat(staged.path).st_mode) == 0o444
        assert staged.size == os.stat(staged.path).st_size
        assert any(staged.origin.endswith(name) for name in place.contents)
        assert len(staged.blocks) == -(-staged.size // (16 << 20))
    batch.discard()


def test_discarding_leaves_nothing_and_gives_back_the_room_and_the_source(place: Place, producer: Producer) -> None:
    batch = place.batch()
    producer(place, batch)
    batch.discard()
    batch.discard()
    assert place.blobs() == set()
    assert_nothing_is_left(place)
    assert place.at_source() == {name: (place.contents[name], 0o640, 1) for name in place.at_source()}


def test_committed_bytes_have_their_names(place: Place, producer: Producer) -> None:
    results = produce(place, producer)
    assert place.blobs() == set(place.contents.values())
    assert {each.blob.digest for each in results} == place.digests
    assert sum(not each.reused for each in results) == len(place.digests)
    for blob, _reused in results:
        assert blob.signature == Signature.of(os.stat(blob.path))
        assert stat.S_IMODE(os.stat(blob.path).st_mode) == 0o444
    assert_nothing_is_left(place)


def test_block_checksums_are_kept_of_what_a_repair_would_fetch_by_range(
    place: Place, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "BLOCK", 1 << 20)
    for blob, reused in produce(place, producer):
        if blob.size > 1 << 20 and not reused:
            known = load_blocks(place.layout, blob.digest)
            assert known is not None
            assert known.size == blob.size


def test_the_same_bytes_again_are_the_same_blobs(place: Place, producer: Producer) -> None:
    produce(place, producer)
    inodes = {digest: inode_of(place, digest) for digest in place.digests}
    again = produce(place, producer)
    assert all(each.reused for each in again)
    assert {digest: inode_of(place, digest) for digest in place.digests} == inodes
    assert_nothing_is_left(place)


def test_bad_bytes_under_a_name_make_room_for_good_ones(place: Place, producer: Producer) -> None:
    batch = place.batch()
    producer(place, batch)
    planted = Path(place.layout.blob(batch.staged[0].digest))
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_bytes(BAD)
    assert not any(each.reused for each in settle_and_commit(batch).values())
    assert place.blobs() == set(place.contents.values())
    assert [path.read_bytes() for path in Path(place.layout.quarantine_dir).iterdir()] == [BAD]
    assert_nothing_is_left(place)


@pytest.mark.parametrize("how", ["written to", "replaced", "removed"])
def test_a_staged_file_that_another_program_changed_gets_no_name(place: Place, producer: Producer, how: str) -> None:
    """A name would say that the bytes are those that were hashed."""
    batch = place.batch()
    producer(place, batch)
    staged = Path(batch.staged[-1].path)
    content = b"F" * staged.stat().st_size
    if how == "written to":
        staged.chmod(0o644)
    else:
        staged.unlink()
    if how != "removed":
        staged.write_bytes(content)
    with pytest.raises(WireError):
        batch.commit()
    assert place.blobs() == set()
    assert place.leftovers() == []


@pytest.mark.parametrize("producer", ["copy", "directory", "download"], indirect=True)
def test_a_staged_copy_that_has_a_second_name_gets_no_name(place: Place, producer: Producer, tmp_path: Path) -> None:
    """It can be written to by the other one."""
    batch = place.batch()
    producer(place, batch)
    os.link(batch.staged[-1].path, tmp_path / "second")
    with pytest.raises(Corrupt, match="changed by another program"):
        batch.commit()
    assert place.blobs() == set()


def test_times_that_settle_late_spoil_nothing(place: Place, producer: Producer) -> None:
    """On some network filesystems: then the bytes decide."""
    batch = place.batch()
    producer(place, batch)
    for staged in batch.staged:
        if staged.sealed is not None:
            os.utime(staged.path, (5, 5))
    assert batch.commit().keys() == place.digests
    assert place.blobs() == set(place.contents.values())


def test_a_sync_that_fails_condemns_and_is_never_tried_again(
    place: Place, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the bytes, wherever the producer or its batch syncs them; not of the download's journal before."""
    synced: Counter[int] = Counter()

    def fail(descriptor: int) -> None:
        info = os.fstat(descriptor)
        if stat.S_ISREG(info.st_mode) and not info.st_mode & 0o222:
            synced[info.st_ino] += 1
            raise OSError(errno.EIO, "lost page")
        os.fsync(descriptor)

    def fail_together(_self: durable.FilesystemSync) -> bool:
        raise OSError(errno.EIO, "lost page")

    with monkeypatch.context() as patched:
        patched.setattr(durable, "sync_file", fail)
        patched.setattr(durable.FilesystemSync, "sync", fail_together)
        with pytest.raises(Internal):
            produce(place, producer)
    assert max(synced.values(), default=1) == 1
    assert place.blobs() == set()
    assert place.space.promised == 0
    assert place.rig.only_partial(), "only what a download is resumed from"
    produce(place, producer)
    assert place.blobs() == set(place.contents.values())
    assert_nothing_is_left(place)


def test_each_new_blob_is_looked_at_once(place: Place, producer: Producer, looked: Counter[str]) -> None:
    results = produce(place, producer)
    assert sorted(looked.values()) == [1] * len(place.digests)
    assert all(isinstance(each.blob, Blob) for each in results)


def test_what_turned_out_to_be_here_is_not_looked_at(place: Place, producer: Producer, looked: Counter[str]) -> None:
    produce(place, producer)
    looked.clear()
    batch = place.batch()
    producer(place, batch)
    assert batch.settle({}).keys() == place.digests
    assert batch.commit() == {}
    assert not looked
    assert_nothing_is_left(place)


def test_the_look_tells_the_format_by_the_bytes(place: Place, producer: Producer) -> None:
    batch = place.batch()
    producer(place, batch)
    batch.settle({})
    for staged in batch.staged:
        assert staged.inspection is not None
        facts = staged.inspection.facts
        assert (facts is not None and facts.format == "gguf") == staged.origin.endswith("gguf")
    batch.discard()


def test_a_look_that_fails_stops_nothing_and_says_why(
    place: Place, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Inspection:
        raise ValueError("a header of an unknown kind")

    monkeypatch.setattr(look, "inspect", broken)
    batch = place.batch()
    producer(place, batch)
    staged = batch.staged
    with structlog.testing.capture_logs() as logged:
        settle_and_commit(batch)
    assert place.blobs() == set(place.contents.values())
    assert [each.inspection for each in staged] == [Inspection()] * len(staged)
    assert {line["reason"] for line in logged} == {"a header of an unknown kind"}


@pytest.mark.parametrize("name", PRODUCERS)
def test_each_call_of_the_commit_fails_once(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def strike(_name: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    contents, producer = PRODUCERS[name]
    for nth in range(1, 1000, 3 if len(contents) < 4 else 23):
        (tmp_path / str(nth)).mkdir()
        place, faults = Place(tmp_path / str(nth)), Faults(nth, strike)
        batch = place.batch()
        producer(place, batch)
        descriptors = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patched:
            plant_faults(patched, faults)
            failed = False
            try:
                settle_and_commit(batch)
            except WireError:
                failed = True
        assert place.blobs() <= set(place.contents.values()), "no blob is torn"
        assert place.space.promised == 0
        assert len(os.listdir("/proc/self/fd")) <= descriptors, faults.struck
        if faults.struck != ["unlink"]:
            assert place.leftovers() == [], faults.struck
        if not failed:
            assert place.blobs() == set(place.contents.values())
        produce(place, producer)
        assert place.blobs() == set(place.contents.values())
        place.rig.client.close()
        if not faults.struck:
            assert nth > 1
            return
    pytest.fail("the sweep has no end")
