"""Which blocks of damaged files begin a download, and that nothing but a proven block does."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from modeld.download.partials import salvage as salvaging
from modeld.download.partials.journal import Header, checksum
from modeld.download.partials.partial import Partial
from modeld.download.partials.salvage import COPIED, KEPT, Donor, Salvaged, salvage
from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.store.blobs.block_checksums import BLOCK, BlockSummer, BlockSums
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.publish.holds import Holds
from modelwire.errors import NoSpace

CONTENT = random.Random(1).randbytes(3 * BLOCK + 100)
SIZE = len(CONTENT)
DIGEST = Digest(hashlib.sha256(CONTENT).hexdigest())


def sums_of(content: bytes) -> BlockSums:
    summer = BlockSummer()
    summer.update(memoryview(content))
    return BlockSums(len(content), summer.finish())


KNOWN = sums_of(CONTENT)


class Salvage:
    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self.layout = Layout(str(directory))
        self.free = 1 << 30
        self.space = Space(lambda: self.free)
        self.progress = FileProgress()
        os.makedirs(self.layout.staging)

    def donor(self, who: str, *damaged: int, cut: int = 0) -> Donor:
        """A file with one bit flipped at each of these places."""
        content = bytearray(CONTENT[: SIZE - cut])
        for at in damaged:
            content[at] ^= 1
        path = self.directory / f"donor-{who}-{len(os.listdir(self.directory))}"
        path.write_bytes(content)
        descriptor = os.open(path, os.O_RDONLY)
        self.stack.callback(os.close, descriptor)
        return Donor(who, descriptor)

    def run(self, *donors: Donor, known: BlockSums | None = KNOWN, keep: bool = True) -> Salvaged | None:
        holds = Holds()
        return salvage(
            self.layout,
            DIGEST,
            known,
            donors,
            keep_incomplete=keep,
            space=self.space,
            holds=holds,
            progress=self.progress,
        )

    def found(self, *donors: Donor) -> tuple[int, int, int]:
        salvaged = self.run(*donors)
        assert salvaged is not None
        return salvaged.blocks, salvaged.damaged, salvaged.missing

    def journalled(self) -> dict[tuple[int, int], str]:
        """The pieces of the download, each as its journal has it, after a look at its bytes."""
        partial = Partial.open(self.layout, Header(DIGEST.hex, SIZE), DIGEST, None)
        pieces = {(piece.start, piece.end): partial.identities[piece.source].name for piece in partial.pieces}
        for piece in partial.pieces:
            bytes_there = os.pread(partial.descriptor, piece.end - piece.start, piece.start)
            assert checksum(memoryview(bytes_there)) == piece.checksum
            assert bytes_there == CONTENT[piece.start : piece.end]
        partial.close()
        return pieces


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Salvage]:
    with ExitStack() as stack:
        yield Salvage(tmp_path, stack)


def test_good_blocks_are_journalled_and_damaged_ones_are_missing(at: Salvage) -> None:
    assert at.found(at.donor(KEPT, BLOCK, BLOCK + 5, 3 * BLOCK + 99)) == (4, 2, BLOCK + 100)
    pieces = at.journalled()
    assert sum(end - start for start, end in pieces) == 2 * BLOCK
    assert set(pieces.values()) == {KEPT}
    assert at.space.promised == 0


def test_a_copy_gives_what_the_kept_file_has_not(at: Salvage) -> None:
    assert at.found(at.donor(KEPT, 5, 2 * BLOCK), at.donor(COPIED, 5, BLOCK)) == (4, 2, BLOCK)
    pieces = at.journalled()
    assert {who for (start, _), who in pieces.items() if start >= 2 * BLOCK and start < 3 * BLOCK} == {COPIED}


def test_a_download_that_nothing_can_complete_takes_no_space(at: Salvage) -> None:
    lost = at.run(at.donor(KEPT, 5), keep=False)
    assert lost is not None
    assert (lost.damaged, lost.missing) == (1, BLOCK)
    assert os.listdir(at.layout.keyed_partials) == []
    whole = at.run(at.donor(KEPT, 5), at.donor(COPIED), keep=False)
    assert whole is not None
    assert whole.missing == 0
    assert sum(end - start for start, end in at.journalled()) == SIZE


def test_an_earlier_download_that_nothing_can_complete_now_stays(at: Salvage) -> None:
    at.run(at.donor(KEPT, 5))
    before = at.journalled()
    at.run(at.donor(KEPT, 5), keep=False)
    assert at.journalled() == before


def test_a_download_without_a_good_byte_is_not_begun(at: Salvage) -> None:
    assert at.found(at.donor(KEPT, 5, BLOCK, 2 * BLOCK, 3 * BLOCK)) == (4, 4, SIZE)
    assert os.listdir(at.layout.keyed_partials) == []


def test_a_file_that_is_cut_off_gives_its_whole_blocks(at: Salvage) -> None:
    assert at.found(at.donor(KEPT, cut=BLOCK)) == (4, 2, BLOCK + 100)


def test_what_is_here_already_is_not_copied_again(at: Salvage, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = at.donor(KEPT, 2 * BLOCK)
    at.found(kept)
    monkeypatch.setattr(durable, "copy_range", lambda *_: pytest.fail("was copied"))
    assert at.found(kept) == (4, 1, BLOCK)


def test_without_checksums_only_a_copy_of_the_whole_is_taken(at: Salvage) -> None:
    assert at.run(at.donor(KEPT), known=None) is None
    whole = at.run(at.donor(KEPT), at.donor(COPIED), known=None)
    assert whole is not None
    assert (whole.size, whole.missing) == (SIZE, 0)
    assert set(at.journalled().values()) == {COPIED}


def test_without_checksums_a_copy_does_not_join_what_a_source_has_given(at: Salvage) -> None:
    """Were it of another file, the digest of the whole would cost all of it."""
    at.run(at.donor(KEPT, 5))
    before = at.journalled()
    assert at.run(at.donor(COPIED, 7), known=None) is None
    assert at.journalled() == before


def test_without_checksums_a_copy_that_was_begun_goes_on(at: Salvage, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = at.donor(COPIED)
    at.run(whole, known=None)
    monkeypatch.setattr(durable, "copy_range", lambda *_: pytest.fail("was copied"))
    again = at.run(whole, known=None)
    assert again is not None
    assert again.missing == 0


def test_a_download_of_another_process_is_left_alone(at: Salvage) -> None:
    other = Partial.open(at.layout, Header(DIGEST.hex, SIZE), DIGEST, None)
    try:
        assert at.run(at.donor(KEPT)) is None
    finally:
        other.close()


def test_a_block_that_the_disk_cannot_read_is_damaged(at: Salvage, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, read = at.donor(KEPT), durable.read_at

    def read_at(descriptor: int, into: memoryview, offset: int, flags: int = 0) -> int:
        if descriptor == kept.descriptor and BLOCK <= offset < 2 * BLOCK:
            raise OSError(errno.EIO, "bad sector")
        return read(descriptor, into, offset, flags)

    monkeypatch.setattr(durable, "read_at", read_at)
    assert at.found(kept) == (4, 1, BLOCK)


def test_the_space_is_reserved_before_the_first_byte(at: Salvage, monkeypatch: pytest.MonkeyPatch) -> None:
    at.free = SIZE - 1
    monkeypatch.setattr(durable, "copy_range", lambda *_: pytest.fail("was copied"))
    with pytest.raises(NoSpace):
        at.run(at.donor(KEPT))


def test_a_stop_keeps_what_was_copied(at: Salvage, monkeypatch: pytest.MonkeyPatch) -> None:
    job = JobProgress()
    at.progress = FileProgress(job)
    monkeypatch.setattr(salvaging, "_SYNCED_EACH", BLOCK)
    copy = durable.copy_range

    def then_stop(source: int, target: int, offset: int, length: int) -> None:
        copy(source, target, offset, length)
        if offset >= BLOCK:
            job.stop_reason = "cancel"

    monkeypatch.setattr(durable, "copy_range", then_stop)
    with pytest.raises(Stopped):
        at.run(at.donor(KEPT))
    assert sum(end - start for start, end in at.journalled()) >= BLOCK


@pytest.mark.parametrize("call", ["copy_range", "sync_file"])
def test_a_disk_that_fails_is_a_fault_of_the_store_and_leaves_no_unproven_piece(
    at: Salvage, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    kept = at.donor(KEPT)
    for number in range(1, 40):
        with monkeypatch.context() as patch:
            real, calls = getattr(durable, call), [0]

            def failing(*arguments: int, real: object = real, calls: list[int] = calls, number: int = number) -> None:
                calls[0] += 1
                if calls[0] == number:
                    raise OSError(errno.ENOSPC, "full")
                real(*arguments)  # type: ignore[operator]

            patch.setattr(durable, call, failing)
            try:
                at.run(kept)
                done = True
            except NoSpace:
                done = False
        at.journalled()
        assert at.space.promised == 0
        if done:
            break
    else:
        pytest.fail("it never ended")
