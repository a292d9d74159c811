"""What a watch reports, and that it reports before the change is complete."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.platform import watches
from modeld.platform.posix.watches import CONTENT, ENTRIES, ITSELF, Change, Watches

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watches]:
    try:
        watches.require_local(str(tmp_path))
    except OSError:
        pytest.skip("the temporary directory is on a filesystem that is not watched")
    made = Watches()
    yield made
    made.close()
    made.close()


def changes(watching: Watches) -> set[Change]:
    assert watching.changed()
    found = set(watching.changes())
    assert not watching.changed()
    return found


def test_a_file_reports_changes_under_each_of_its_names(watching: Watches, tmp_path: Path) -> None:
    file, second = tmp_path / "file", tmp_path / "second"
    file.write_bytes(b"bytes")
    watch = watching.place(str(file), CONTENT)
    assert not watching.changed()
    assert file.read_bytes() == b"bytes"
    assert not watching.changed()
    os.link(file, second)
    assert changes(watching) == {Change(watch, "")}
    os.truncate(second, 1)
    assert changes(watching) == {Change(watch, "")}
    file.unlink()
    assert changes(watching) == {Change(watch, "")}
    second.rename(tmp_path / "third")
    assert changes(watching) == {Change(watch, "")}


def test_a_directory_reports_its_entries_or_only_itself(watching: Watches, tmp_path: Path) -> None:
    all_of_it, itself = tmp_path / "all", tmp_path / "itself"
    for directory in (all_of_it, itself):
        directory.mkdir()
    first, second = watching.place(str(all_of_it), ENTRIES), watching.place(str(itself), ITSELF)
    for directory in (all_of_it, itself):
        (directory / "entry").write_bytes(b"")
    assert changes(watching) == {Change(first, "entry")}
    itself.chmod(0o700)
    assert changes(watching) == {Change(second, "")}
    itself.rename(tmp_path / "moved")
    assert changes(watching) == {Change(second, "")}


def test_the_same_file_has_the_same_watch_and_its_removal_is_a_change(watching: Watches, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    os.link(file, tmp_path / "link")
    watch = watching.place(str(file), CONTENT)
    assert watching.place(str(tmp_path / "link"), CONTENT) == watch
    watching.remove(watch)
    assert changes(watching) == {Change(watch, "")}
    watching.remove(watch)
    assert not watching.changed()


def test_no_link_is_followed(watching: Watches, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for what in (ITSELF, ENTRIES):
        with pytest.raises(NotADirectoryError):
            watching.place(str(tmp_path / "link"), what)
    with pytest.raises(FileNotFoundError) as fault:
        watching.place(str(tmp_path / "none"), CONTENT)
    assert fault.value.errno == errno.ENOENT


def test_other_filesystems_are_not_watched(tmp_path: Path) -> None:
    assert watches.watches_for(str(tmp_path), "/proc") is None
    assert watches.watches_for(str(tmp_path / "none")) is None
