"""What leads to a directory is watched with it: other directories, and symbolic links."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.platform import watches
from modeld.platform.posix.watches import ENTRIES, ITSELF, Change, Watches

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")

ANEW = Change(-1, "")


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watches]:
    (tmp_path / "real/inner").mkdir(parents=True)
    try:
        watches.require_local(str(tmp_path))
    except OSError:
        pytest.skip("the temporary directory is on a filesystem that is not watched")
    made = Watches()
    yield made
    made.close()


def changes(watching: Watches) -> set[Change]:
    found: set[Change] = set()
    while watching.changed():
        found.update(watching.changes())
    return found


def test_all_paths_to_a_directory_have_the_same_watch(watching: Watches, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    number = watching.reach(f"{tmp_path}/real/inner", ITSELF)
    for path in ("link/inner", "./real//inner/", "link/../real/./inner", "real/inner/../../link/inner"):
        assert watching.reach(f"{tmp_path}/{path}", ITSELF) == number, path
    assert watching.reach(f"/{tmp_path}/real/inner", ITSELF) == number
    assert not watching.changed()


@pytest.mark.parametrize("changed", ["", "real", "link", "real/inner"])
def test_each_step_is_watched(watching: Watches, tmp_path: Path, changed: str) -> None:
    (tmp_path / "link").symlink_to("real")
    watching.reach(f"{tmp_path}/link/inner", ITSELF)
    os.rename(tmp_path / changed, f"{tmp_path}-moved" if not changed else tmp_path / "moved")
    assert ANEW in changes(watching)
    if not changed:
        os.rename(f"{tmp_path}-moved", tmp_path)
    assert ANEW not in changes(watching)  # nothing of it is watched any longer


def test_what_is_beside_the_way_is_not_watched(watching: Watches, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    watching.reach(f"{tmp_path}/link/inner", ITSELF)
    (tmp_path / "other").mkdir()
    (tmp_path / "other").chmod(0o700)  # its directory reports this
    (tmp_path / "real/file").write_bytes(b"")
    (tmp_path / "other").rename(tmp_path / "other2")
    assert ANEW not in changes(watching)


def test_a_directory_on_two_ways_is_watched_for_both_reasons(watching: Watches, tmp_path: Path) -> None:
    number = watching.reach(f"{tmp_path}/real", ENTRIES)
    watching.reach(f"{tmp_path}/real/inner", ITSELF)
    (tmp_path / "real/entry").write_bytes(b"")
    assert Change(number, "entry") in changes(watching)
    (tmp_path / "real").rename(tmp_path / "moved")
    assert ANEW in changes(watching)


def test_a_path_that_leads_nowhere_raises(watching: Watches, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    (tmp_path / "hanging").symlink_to("none")
    (tmp_path / "file").write_bytes(b"")
    reasons = {
        "one": errno.ELOOP,
        "one/inner": errno.ELOOP,
        "hanging": errno.ENOENT,
        "none/inner": errno.ENOENT,
        "file": errno.ENOTDIR,
        "file/inner": errno.ENOTDIR,
    }
    for path, reason in reasons.items():
        with pytest.raises(OSError, match=str(tmp_path)) as fault:
            watching.reach(f"{tmp_path}/{path}", ITSELF)
        assert fault.value.errno == reason, path


def test_as_many_links_as_the_kernel_follows(watching: Watches, tmp_path: Path) -> None:
    before = "real"
    for number in range(41):
        (tmp_path / f"link-{number}").symlink_to(before)
        before = f"link-{number}"
    (tmp_path / "link-39").stat()
    watching.reach(f"{tmp_path}/link-39", ITSELF)
    for follow in (os.stat, lambda path: watching.reach(path, ITSELF)):
        with pytest.raises(OSError, match="Too many levels"):
            follow(f"{tmp_path}/link-40")


def test_a_link_to_and_on_another_filesystem_is_not_watched(watching: Watches, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    (tmp_path / "magic").symlink_to(f"/proc/self/cwd/../..{tmp_path}")
    for path in ("link", "magic"):
        with pytest.raises(OSError, match="not all changes"):
            watching.reach(f"{tmp_path}/{path}", ITSELF)
        assert watches.watches_for(f"{tmp_path}/{path}") is None
    made = watches.watches_for(str(tmp_path))
    assert made is not None
    made.close()


def test_what_is_closed_reports_and_places_nothing(watching: Watches, tmp_path: Path) -> None:
    number = watching.reach(str(tmp_path), ENTRIES)
    (tmp_path / "entry").write_bytes(b"")
    watching.close()
    other = Watches()
    other.reach(str(tmp_path), ENTRIES)
    assert not watching.changed()
    assert list(watching.changes()) == []
    watching.remove(number)
    with pytest.raises(OSError, match="closed"):
        watching.place(str(tmp_path), ITSELF)
    assert not other.changed()
    other.close()


@pytest.mark.parametrize("moment", ["before the number is noted", "after it"])
def test_a_step_that_changes_while_it_is_taken_is_taken_again(
    watching: Watches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another thread takes the change from the queue at that moment."""
    (tmp_path / "other/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "fresh").symlink_to("other")
    place = watching.place

    def replace(path: str, what: int) -> int:
        at_link = path == f"{tmp_path}/{'link' if moment.startswith('before') else 'real'}"
        number = place(path, what)
        if at_link and os.path.lexists(tmp_path / "fresh"):
            (tmp_path / "fresh").rename(tmp_path / "link")
            assert changes(watching)
        return number

    monkeypatch.setattr(watching, "place", replace)
    watching.reach(f"{tmp_path}/link/inner", ITSELF)
    monkeypatch.undo()
    again = watching.reach(f"{tmp_path}/link/inner", ITSELF)
    assert again == watching.place(f"{tmp_path}/other/inner", ITSELF)
    (tmp_path / "link").unlink()
    assert ANEW in changes(watching)


def test_a_known_way_is_not_taken_again(watching: Watches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to("real")
    number = watching.reach(f"{tmp_path}/link", ITSELF)
    with monkeypatch.context() as patched:
        patched.setattr(watching, "place", None)
        patched.setattr(os, "readlink", None)
        assert watching.reach(f"{tmp_path}/link", ITSELF) == number
    (tmp_path / "real").rename(tmp_path / "moved")
    assert ANEW in changes(watching)
    with pytest.raises(FileNotFoundError):
        watching.reach(f"{tmp_path}/link", ITSELF)
