"""Bad bytes are kept under names that never collide."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from modeld.store.blobs.quarantine import quarantine
from modeld.store.digest import Signature
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def bad_file(tmp_path: Path, name: str, content: bytes = b"bad") -> str:
    path = tmp_path / name
    path.write_bytes(content)
    return str(path)


def test_name_tells_when_and_why(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    source = bad_file(tmp_path, "a")
    kept = quarantine(layout, source, "digest mismatch: é/..", NOW)
    assert kept == f"{layout.quarantine_dir}/20260304T050607Z-digest-mismatch------.bin"
    assert Path(kept).read_bytes() == b"bad"
    assert not os.path.exists(source)


def test_time_is_utc_whatever_the_zone(tmp_path: Path) -> None:
    local = NOW.astimezone(timezone(timedelta(hours=9)))
    assert "/20260304T050607Z-x.bin" in quarantine(Layout(str(tmp_path)), bad_file(tmp_path, "a"), "x", local)


def test_second_and_third_of_one_second_are_numbered(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    names = [os.path.basename(quarantine(layout, bad_file(tmp_path, f"f{n}", b"%d" % n), "x", NOW)) for n in range(3)]
    assert names == ["20260304T050607Z-x.bin", "20260304T050607Z-x-2.bin", "20260304T050607Z-x-3.bin"]
    assert Path(layout.quarantine_dir, names[0]).read_bytes() == b"0"


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    paths = [bad_file(tmp_path, f"f{n}", b"%d" % n) for n in range(20)]
    threads = [threading.Thread(target=quarantine, args=(layout, path, "x", NOW)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = {path.read_bytes() for path in Path(layout.quarantine_dir).iterdir()}
    assert kept == {b"%d" % n for n in range(20)}


def test_a_link_is_moved_and_not_what_it_points_to(tmp_path: Path) -> None:
    target = bad_file(tmp_path, "target")
    os.symlink(target, tmp_path / "link")
    kept = quarantine(Layout(str(tmp_path)), str(tmp_path / "link"), "x", NOW)
    assert os.path.islink(kept)
    assert os.path.exists(target)


def test_a_long_reason_fits_a_file_name(tmp_path: Path) -> None:
    kept = quarantine(Layout(str(tmp_path)), bad_file(tmp_path, "a"), "r" * 1000, NOW)
    assert len(os.path.basename(kept)) < 150


def test_nothing_to_move_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        quarantine(Layout(str(tmp_path)), str(tmp_path / "absent"), "x", NOW)


@pytest.mark.parametrize("taken", [False, True])
def test_a_file_that_took_the_place_of_the_bad_one_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, taken: bool
) -> None:
    """Another tool may name good bytes between the look at the bad ones and their removal, and again."""
    layout, path = Layout(str(tmp_path)), bad_file(tmp_path, "a")
    seen = Signature.of(os.stat(path))
    move, calls = durable.name_without_replacing, 0

    def race(source: str, target: str) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1 or taken:
            os.replace(bad_file(tmp_path, f"new{calls}", b"good%d" % calls), path)
        return move(source, target)

    monkeypatch.setattr(durable, "name_without_replacing", race)
    with pytest.raises(FileNotFoundError):
        quarantine(layout, path, "corrupt-blob", NOW, only=seen)
    assert Path(path).read_bytes() == (b"good2" if taken else b"good1")
    assert os.listdir(layout.quarantine_dir) == []
