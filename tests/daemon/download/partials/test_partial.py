"""What lies where a download would be resumed is used when it is ours, and left alone when it is not."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from modeld.download.partials import journal
from modeld.download.partials.journal import Header, Piece, checksum
from modeld.download.partials.partial import Partial, kept_bytes
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout

DIGEST = Digest("ab" * 32)
HEADER = Header(DIGEST.hex, 100)
CONTENT = memoryview(bytes(range(100)))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path))
    os.makedirs(layout.blobs_dir)
    return layout


def begun(layout: Layout, header: Header = HEADER, digest: Digest | None = DIGEST, key: str | None = None) -> None:
    partial = Partial.open(layout, header, digest, key)
    os.pwrite(partial.descriptor, CONTENT, 0)
    number = partial.identity("source", '"one"')
    partial.record([Piece(0, 60, checksum(CONTENT[:60]), number)])
    partial.close()


def opened(layout: Layout, header: Header = HEADER, digest: Digest | None = DIGEST, key: str | None = None) -> Partial:
    partial = Partial.open(layout, header, digest, key)
    partial.close()
    return partial


def test_what_was_recorded_is_found(layout: Layout) -> None:
    begun(layout)
    partial = opened(layout)
    assert [(piece.start, piece.end) for piece in partial.pieces] == [(0, 60)]
    assert partial.path == layout.partial(DIGEST)
    assert partial.identities[0].validator == '"one"'


def test_the_bytes_are_synced_before_the_line_that_vouches_for_them(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a line may outlive, over a power cut, the bytes that it stands for."""
    partial = Partial.open(layout, HEADER, DIGEST, None)
    number = partial.identity("source", '"one"')
    steps: list[str] = []
    sync, append = durable.sync_file, journal.append

    def synced(descriptor: int) -> None:
        steps.append(f"synced {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        sync(descriptor)

    def appended(*arguments: Any) -> int:
        steps.append("vouched")
        return append(*arguments)

    monkeypatch.setattr(durable, "sync_file", synced)
    monkeypatch.setattr(journal, "append", appended)
    partial.record([Piece(0, 60, checksum(CONTENT[:60]), number)])
    partial.close()
    assert steps[:2] == [f"synced {os.path.basename(partial.path)}", "vouched"]
    assert len(steps) == 3, "and the line itself"


@pytest.mark.parametrize("header", [Header(DIGEST.hex, 101), Header("cd" * 32, 100)])
def test_another_file_begins_anew(layout: Layout, header: Header) -> None:
    begun(layout)
    assert opened(layout, header).pieces == ()
    assert os.path.getsize(layout.partial(DIGEST)) == 0


@pytest.mark.parametrize(("validator", "kept"), [('"one"', 1), ('"two"', 0), (None, 0)])
def test_without_a_digest_the_validator_decides(layout: Layout, validator: str | None, kept: int) -> None:
    begun(layout, Header(None, 100, '"one"'), None, "https://host/m")
    partial = opened(layout, Header(None, 100, validator), None, "https://host/m")
    assert len(partial.pieces) == kept
    assert "/.modeld/partials/" in partial.path


def test_without_either_nothing_stays(layout: Layout) -> None:
    partial = opened(layout, Header(None, None), None, None)
    assert not partial.resumable
    assert not os.path.exists(partial.path)


def test_it_lies_where_no_other_tool_writes(layout: Layout) -> None:
    partial = opened(layout)
    assert partial.path.startswith(f"{layout.private}/")
    assert partial.resumable
    assert os.listdir(layout.blobs_dir) == []


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_a_link_in_its_place_is_not_written_through(layout: Layout, tmp_path: Path, make: object) -> None:
    begun(layout)
    os.unlink(layout.partial(DIGEST))
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    make(target, layout.partial(DIGEST))  # type: ignore[operator]
    assert opened(layout).path.startswith(layout.staging)
    assert target.read_bytes() == b"precious"


def test_a_pipe_in_its_place_does_not_block(layout: Layout) -> None:
    os.makedirs(layout.partial_dir(DIGEST))
    os.mkfifo(f"{layout.partial_dir(DIGEST)}/journal")
    assert opened(layout).path.startswith(layout.staging)


def test_one_that_is_being_written_is_not_shared_and_removed_it_is_gone(layout: Layout) -> None:
    first = Partial.open(layout, HEADER, DIGEST, None)
    assert opened(layout).path != first.path
    first.remove()
    assert os.listdir(layout.keyed_partials) == []


def test_a_data_file_that_was_cut_keeps_what_it_has(layout: Layout) -> None:
    begun(layout)
    os.truncate(layout.partial(DIGEST), 59)
    assert opened(layout).pieces == ()


def test_a_journal_of_another_time_begins_anew(layout: Layout) -> None:
    begun(layout)
    Path(f"{layout.partial_dir(DIGEST)}/journal").write_bytes(b"what is this\n")
    partial = opened(layout)
    assert (partial.pieces, partial.path) == ((), layout.partial(DIGEST))


def test_bytes_that_lost_their_journal_begin_anew(layout: Layout) -> None:
    begun(layout)
    os.unlink(f"{layout.partial_dir(DIGEST)}/journal")
    assert opened(layout).pieces == ()
    assert os.path.getsize(layout.partial(DIGEST)) == 0


# -- what an early modeld left in the place of all tools


def left_by_an_early_modeld(layout: Layout) -> Path:
    begun(layout)
    shared = Path(layout.shared_partial_dir(DIGEST))
    shared.parent.mkdir()
    os.rename(layout.partial_dir(DIGEST), shared)
    return shared


def test_what_an_early_modeld_left_goes_on_in_the_new_place(layout: Layout) -> None:
    shared = left_by_an_early_modeld(layout)
    assert kept_bytes(layout, DIGEST, None) > 0
    partial = opened(layout)
    assert [(piece.start, piece.end) for piece in partial.pieces] == [(0, 60)]
    assert Path(layout.partial(DIGEST)).read_bytes() == bytes(CONTENT)
    assert not shared.exists()
    assert kept_bytes(layout, DIGEST, None) > 0


@pytest.mark.parametrize("done", ["data.tmp", "journal"])
def test_a_move_that_a_crash_cut_short_is_finished(layout: Layout, done: str) -> None:
    shared = left_by_an_early_modeld(layout)
    os.makedirs(layout.partial_dir(DIGEST))
    os.rename(shared / done, f"{layout.partial_dir(DIGEST)}/{done}")
    partial = opened(layout)
    assert len(partial.pieces) == (done == "data.tmp"), "the bytes are moved first, so none are lost"


def test_it_replaces_nothing_that_is_newer(layout: Layout) -> None:
    shared = left_by_an_early_modeld(layout)
    shared.rename(shared.parent / "aside")
    begun(layout)
    (shared.parent / "aside").rename(shared)
    before = os.stat(layout.partial(DIGEST)).st_ino
    opened(layout)
    assert os.stat(layout.partial(DIGEST)).st_ino == before
    assert sorted(os.listdir(shared)) == ["data.tmp", "journal"]


def test_a_download_of_another_tool_is_left_alone(layout: Layout) -> None:
    theirs = Path(layout.shared_partial_dir(DIGEST), "data.tmp")
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    assert opened(layout).pieces == ()
    assert theirs.read_bytes() == b"theirs"
    assert os.listdir(theirs.parent) == ["data.tmp"]


@pytest.mark.parametrize("how", ["it is being written", "it is newer", "it has a second name", "it is a link"])
def test_bytes_of_another_tool_beside_an_old_journal_are_left_alone(layout: Layout, tmp_path: Path, how: str) -> None:
    theirs = left_by_an_early_modeld(layout) / "data.tmp"
    written = os.stat(theirs.parent / "journal").st_mtime
    with ExitStack() as writing:
        if how == "it is being written":
            writing.enter_context(open(theirs, "r+b"))
        elif how == "it is newer":
            os.utime(theirs, (written + 3600, written + 3600))
        elif how == "it has a second name":
            os.link(theirs, tmp_path / "second")
        else:
            os.rename(theirs, tmp_path / "elsewhere")
            os.symlink(tmp_path / "elsewhere", theirs)
        partial = opened(layout)
    assert partial.pieces == ()
    assert partial.path == layout.partial(DIGEST)
    assert theirs.read_bytes() == bytes(CONTENT)
    assert os.path.getsize(layout.partial(DIGEST)) == 0


def test_a_tool_that_opens_it_at_the_last_moment_gets_it_back(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = left_by_an_early_modeld(layout) / "data.tmp"
    opened_by_them: list[int] = []
    name = durable.name_without_replacing

    def late(temporary: str, final: str) -> bool:
        if not opened_by_them:
            opened_by_them.append(os.open(theirs, os.O_RDWR))
        return name(temporary, final)

    monkeypatch.setattr(durable, "name_without_replacing", late)
    try:
        assert opened(layout).pieces == ()
        assert os.stat(theirs).st_ino == os.fstat(opened_by_them[0]).st_ino
    finally:
        os.close(opened_by_them[0])
    assert theirs.read_bytes() == bytes(CONTENT)


def test_a_journal_without_sense_in_the_place_of_all_tools_is_left_alone(layout: Layout) -> None:
    shared = left_by_an_early_modeld(layout)
    (shared / "journal").write_bytes(b"what is this\n")
    assert opened(layout).pieces == ()
    assert sorted(os.listdir(shared)) == ["data.tmp", "journal"]
