"""What lies where a download would be resumed is used when it is ours, and left alone when it is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from modeld.download.partials import journal
from modeld.download.partials.journal import Header, Piece, checksum
from modeld.download.partials.partial import Partial
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


def test_a_download_of_another_tool_is_left_alone(layout: Layout) -> None:
    os.makedirs(layout.partial_dir(DIGEST))
    Path(layout.partial(DIGEST)).write_bytes(b"theirs")
    partial = opened(layout)
    assert partial.path.startswith(layout.staging)
    assert Path(layout.partial(DIGEST)).read_bytes() == b"theirs"
    assert os.listdir(layout.partial_dir(DIGEST)) == ["data.tmp"]


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
    assert os.listdir(f"{layout.root}/blobs/sha256/{DIGEST.hex[:2]}") == []


def test_a_data_file_that_was_cut_keeps_what_it_has(layout: Layout) -> None:
    begun(layout)
    os.truncate(layout.partial(DIGEST), 59)
    assert opened(layout).pieces == ()


def test_a_journal_of_another_time_begins_anew(layout: Layout) -> None:
    begun(layout)
    Path(f"{layout.partial_dir(DIGEST)}/journal").write_bytes(b"what is this\n")
    partial = opened(layout)
    assert (partial.pieces, partial.path) == ((), layout.partial(DIGEST))
