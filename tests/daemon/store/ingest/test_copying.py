"""A staged file is whole, checked and durable; what cannot be staged leaves nothing behind."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modeld.progress import FileProgress, Stopped
from modeld.store.blobs.block_checksums import BlockSummer
from modeld.store.blobs.hashing import CHUNK, WHOLE
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.ingest.copying import Source, hash_source, stage_copy
from modeld.store.ingest.staged import Staged
from modelwire.errors import DigestMismatch, Internal, NoSpace, SourceUnavailable
from modelwire.vocabulary import Phase

SIZES = [0, 1, 16 * 1024, WHOLE, WHOLE + 1, 5 * WHOLE + 17]
BIG = 3 * WHOLE


class Recorder(FileProgress):
    """Records its calls; `at_look` gets the number of each check whether to stop."""

    def __init__(self, at_look: Callable[[int], bool] | None = None) -> None:
        super().__init__()
        self.phases: list[Phase] = []
        self.totals: list[int | None] = []
        self.done = self.verified = 0
        self._looks = 0
        self._at_look = at_look

    def phase(self, phase: Phase) -> None:
        self.phases.append(phase)

    def total(self, size: int | None) -> None:
        self.totals.append(size)

    def advance(
        self, *, done: int = 0, verified: int = 0, reused: int = 0, committed: int = 0, network: int = 0, kept: int = 0
    ) -> None:
        self.done += done
        self.verified += verified

    def stopped(self) -> bool:
        self._looks += 1
        return self._at_look is not None and self._at_look(self._looks)


class Bench:
    """A store and a source beside it."""

    def __init__(self, directory: Path) -> None:
        self.layout = Layout(str(directory / "root"))
        os.makedirs(self.layout.blobs_dir)
        self.space = Space(lambda: 1 << 40)
        self.source = directory / "source"
        self._open: list[int] = []

    def stage(
        self, progress: FileProgress | None = None, expected: Digest | None = None, space: Space | None = None
    ) -> Staged:
        descriptor = os.open(self.source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return stage_copy(
                self.layout,
                Source.of(descriptor, str(self.source)),
                expected=expected,
                space=space or self.space,
                progress=progress or FileProgress(),
            )
        finally:
            os.close(descriptor)

    def fill(self, size: int) -> Digest:
        content = os.urandom(size)
        self.source.write_bytes(content)
        return Digest(hashlib.sha256(content).hexdigest())

    def staged_files(self) -> list[str]:
        return os.listdir(self.layout.staging) if os.path.isdir(self.layout.staging) else []

    def assert_clean(self) -> None:
        assert self.staged_files() == []
        assert self.space.promised == 0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    yield Bench(tmp_path)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"


@pytest.mark.parametrize("size", SIZES)
def test_what_is_staged_is_what_was_there(bench: Bench, size: int) -> None:
    digest, progress = bench.fill(size), Recorder()
    staged = bench.stage(progress, expected=digest)
    content = bench.source.read_bytes()
    assert Path(staged.path).read_bytes() == content
    assert (staged.digest, staged.size) == (digest, size)
    assert staged.source == Signature.of(os.stat(bench.source))
    assert stat.S_IMODE(os.stat(staged.path).st_mode) == 0o444
    assert os.path.dirname(staged.path) == bench.layout.staging
    summer = BlockSummer()
    summer.update(memoryview(content))
    assert staged.blocks == summer.finish()
    assert bench.space.promised == size
    assert (progress.done, progress.verified, progress.totals) == (size, size, [size])
    assert progress.phases == ["reserving", "copy"]
    staged.discard()
    staged.discard()
    bench.assert_clean()


def test_holes_become_zeros(bench: Bench) -> None:
    with open(bench.source, "wb") as file:
        file.truncate(BIG)
        file.seek(WHOLE + 5)
        file.write(b"island")
    staged = bench.stage()
    assert staged.digest.hex == hashlib.sha256(bench.source.read_bytes()).hexdigest()
    staged.discard()


def test_no_room_is_reported_before_the_first_byte(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.fill(1000)
    monkeypatch.setattr(durable, "create_file", None)
    with pytest.raises(NoSpace) as caught:
        bench.stage(space=Space(lambda: 999))
    assert (caught.value.details["needed_bytes"], caught.value.details["free_bytes"]) == (1000, 999)
    bench.assert_clean()


@pytest.mark.parametrize("preallocating", [True, False])
@pytest.mark.parametrize("size", [10, BIG])
def test_written_bytes_are_the_filesystem_s_to_count(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int, preallocating: bool
) -> None:
    """The disk says 2 × size free throughout: so there is room for twice as much as soon as it is written."""
    bench.fill(size)
    if not preallocating:
        monkeypatch.setattr(durable, "preallocate", lambda _descriptor, _size: False)
    space = Space(lambda: 2 * size)
    staged = bench.stage(space=space)
    assert space.promised == size
    space.reserve(2 * size).release()
    staged.discard()


@pytest.mark.parametrize("size", [10, BIG])
def test_wrong_bytes_go_to_quarantine(bench: Bench, size: int) -> None:
    actual, expected, progress = bench.fill(size), Digest("ab" * 32), Recorder()
    with pytest.raises(DigestMismatch) as caught:
        bench.stage(progress, expected=expected)
    details = caught.value.details
    assert (details["expected_sha256"], details["actual_sha256"]) == (expected.hex, actual.hex)
    assert expected.text in caught.value.message
    assert actual.text in caught.value.message
    kept = Path(details["quarantine_path"])
    assert kept.read_bytes() == bench.source.read_bytes()
    assert str(kept.parent) == bench.layout.quarantine_dir
    assert kept.name.endswith("Z-digest-mismatch.bin")
    assert progress.phases[-1] == "quarantine"
    bench.assert_clean()


def test_a_mismatch_stays_one_when_quarantine_fails(bench: Bench) -> None:
    bench.fill(10)
    Path(bench.layout.root, "locks").write_bytes(b"in the way")
    with pytest.raises(DigestMismatch) as caught:
        bench.stage(expected=Digest("ab" * 32))
    assert caught.value.details["quarantine_path"] is None
    bench.assert_clean()


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(5, 5))


CHANGES: dict[str, Callable[[Path], None]] = {
    "its size went": append,
    "it was written to": overwrite,
    "its size went from": lambda path: os.truncate(path, WHOLE + 1),
    "its owner, mode or links": lambda path: path.chmod(0o611),
}


@pytest.mark.parametrize("words", CHANGES)
@pytest.mark.parametrize("size", [10, BIG])
def test_a_source_that_changes_is_refused(bench: Bench, size: int, words: str) -> None:
    bench.fill(size)
    change = CHANGES[words]
    changed: list[bool] = []

    def at_look(_number: int) -> bool:
        if not changed:
            change(bench.source)
            changed.append(True)
        return False

    with pytest.raises(SourceUnavailable, match=f"changed while it was being read: {words}") as caught:
        bench.stage(Recorder(at_look))
    assert caught.value.retryable
    bench.assert_clean()
    assert not os.path.exists(bench.layout.quarantine_dir)
    bench.stage().discard()


def test_a_source_that_ends_early_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.fill(BIG)
    read_at = durable.read_at

    def short(descriptor: int, into: memoryview, offset: int, flags: int = 0) -> int:
        return read_at(descriptor, into, offset, flags) if offset < WHOLE else 0

    monkeypatch.setattr(durable, "read_at", short)
    with pytest.raises(SourceUnavailable, match=f"it ended after {WHOLE} of {BIG} bytes"):
        bench.stage()
    bench.assert_clean()


@pytest.mark.parametrize("look", [1, 2, 3])
def test_stopping_leaves_nothing(bench: Bench, look: int) -> None:
    bench.fill(BIG)
    progress = Recorder(lambda number: number >= look)
    with pytest.raises(Stopped):
        bench.stage(progress)
    assert progress.done <= (look - 1) * CHUNK
    bench.assert_clean()


@pytest.mark.parametrize("size", [10, BIG])
def test_a_close_that_reports_a_loss_condemns_the_bytes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """As a network filesystem does, which finds out only then."""
    bench.source.write_bytes(os.urandom(size))

    def lossy(descriptor: int) -> None:
        os.close(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(durable, "close", lossy)
        with pytest.raises(Internal, match="cannot close"):
            bench.stage()
    assert os.listdir(bench.layout.staging) == []
    assert bench.space.promised == 0


def test_a_filesystem_that_shares_extents_is_asked_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, progress = bench.fill(BIG), Recorder()
    asked: list[int] = []

    def ioctl(target: int, request: int, source: int) -> int:
        asked.append(request)
        os.sendfile(target, source, 0, BIG)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    staged = bench.stage(progress)
    assert asked == [0x40049409]
    assert (staged.digest, staged.size) == (digest, BIG)
    assert (progress.done, progress.verified) == (BIG, BIG)
    assert progress.phases == ["reserving", "copy", "verify"]
    staged.discard()


def test_the_shared_bytes_are_hashed_and_not_the_source(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = bench.fill(BIG)

    def ioctl(target: int, _request: int, _source: int) -> int:
        os.pwrite(target, b"\0" * BIG, 0)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with pytest.raises(DigestMismatch) as caught:
        bench.stage(expected=digest)
    assert caught.value.details["actual_sha256"] == hashlib.sha256(b"\0" * BIG).hexdigest()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a group that is not the daemon's")
def test_a_shared_store_gets_files_of_its_group(bench: Bench) -> None:
    bench.fill(10)
    os.chown(bench.layout.blobs_dir, -1, 64_003)
    os.chmod(bench.layout.blobs_dir, 0o2775)
    staged = bench.stage()
    assert os.stat(staged.path).st_gid == 64_003
    staged.discard()


@pytest.mark.parametrize("size", SIZES)
def test_a_source_is_hashed_without_writing(bench: Bench, size: int) -> None:
    digest = bench.fill(size)
    with open(bench.source, "rb") as file:
        assert hash_source(Source.of(file.fileno(), str(bench.source)), FileProgress()) == digest
    assert not os.path.exists(bench.layout.staging)


def test_a_source_that_changes_while_it_is_hashed_is_refused(bench: Bench) -> None:
    bench.fill(BIG)

    def at_look(number: int) -> bool:
        if number == 2:
            append(bench.source)
        return False

    with open(bench.source, "rb") as file, pytest.raises(SourceUnavailable, match="its size went"):
        hash_source(Source.of(file.fileno(), str(bench.source)), Recorder(at_look))
