"""Handoffs: what is in them, where they are, and that a failure at any call leaves each target as it was."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from modelclient.platform import posix_files
from modelclient.provisioning.handoff import DEFAULT, targets, write_all
from modelclient.provisioning.replacing import MAX_OLD_BYTES
from modelwire import errors
from modelwire.errors import WireError
from rigs.handoff_rig import OLD, Site, content


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


# -- what and where


def test_the_content(tmp_path: Path) -> None:
    target = tmp_path / "handoff.json"
    write_all([(str(target), "hf:org/répo", '/srv/"models"/data')])
    assert target.read_bytes().endswith(b'"}}\n')
    assert json.loads(target.read_bytes()) == {"model": {"id": "hf:org/répo", "path": '/srv/"models"/data'}}


def test_the_targets_of_several_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = f"{tmp_path}/.runtime/engines/llamacpp"
    assert targets(0) == ()
    assert targets(1) == (f"{here}.json",)
    assert targets(3) == (f"{here}.json", f"{here}-2.json", f"{here}-3.json")
    assert targets(2, base="/srv") == ("/srv/.runtime/engines/llamacpp.json", "/srv/.runtime/engines/llamacpp-2.json")
    assert targets(1, base="sub") == (f"{tmp_path}/sub/{DEFAULT}",)
    assert targets(2, base="/srv", handoff="x.y.json") == (f"{tmp_path}/x.y.json", f"{tmp_path}/x.y-2.json")
    assert targets(2, handoff="/srv/.hidden") == ("/srv/.hidden", "/srv/.hidden-2")


def test_targets_need_a_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(errors.NotFound, match="the working directory is not there"):
        targets(1)


def test_all_are_written(site: Site) -> None:
    write_all(site.handoffs)
    assert site.entries() == site.after()
    write_all(site.handoffs)
    assert site.entries() == site.after()


def test_none_is_fine(site: Site) -> None:
    write_all([])
    assert site.entries() == site.before


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o000, 0o644)])
def test_the_mode_is_that_of_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    (tmp_path / "old.json").write_bytes(OLD)
    (tmp_path / "old.json").chmod(0o400)
    before = os.umask(mask)
    try:
        write_all([(str(tmp_path / name), "m", "/m") for name in ("old.json", "new/one.json")])
    finally:
        os.umask(before)
    for name in ("old.json", "new/one.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize(
    ("target", "model", "path", "what"),
    [
        ("/t.json", "m", "relative", "the model's path 'relative' of a handoff is not absolute"),
        ("/t.json", "m", "", "the model's path '' of a handoff is not absolute"),
        ("/t.json", "m", "/a\0b", "is not a path"),
        ("/t.json", "m", "/a\udcff", "JSON holds Unicode only"),
        ("/t.json", "m\ud800", "/a", "JSON holds Unicode only"),
        ("/t.json", "", "/a", "needs the id of its model"),
        ("t.json", "m", "/a", "the target 't.json' of a handoff is not absolute"),
        ("/t\0.json", "m", "/a", "is not a path"),
        ("/t\ud800.json", "m", "/a", "is not a path"),
    ],
)
def test_what_no_handoff_can_say(site: Site, target: str, model: str, path: str, what: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=what):
        write_all([*site.handoffs, (target, model, path)])
    assert site.entries() == site.before


# -- targets that are not as they should be


def test_a_target_that_is_no_file(site: Site) -> None:
    os.mkfifo(site.base / "pipe")
    (site.base / "huge").write_bytes(bytes(MAX_OLD_BYTES + 1))
    (site.base / "loop").symlink_to("loop")
    (site.base / "dangling").symlink_to("missing/file.json")
    (site.base / "to_directory").symlink_to("a")
    before = site.entries()
    for name, kind, what in [
        ("a", errors.InvalidRequest, "is a directory"),
        ("to_directory", errors.InvalidRequest, "is a directory"),
        ("a/", errors.InvalidRequest, "names a directory"),
        ("new/", errors.InvalidRequest, "names a directory"),
        ("a/..", errors.InvalidRequest, "names a directory"),
        ("pipe", errors.InvalidRequest, "is not a regular file"),
        ("huge", errors.InvalidRequest, f"has {MAX_OLD_BYTES + 1} bytes"),
        ("loop", errors.InvalidRequest, "leads to no end"),
        ("dangling", errors.NotFound, "is a symbolic link to .*/missing/file.json"),
        ("a/one.json/below.json", errors.InvalidRequest, "Not a directory"),
        ("a/one.json/below/it.json", errors.InvalidRequest, "Not a directory"),
        ("dangling/below.json", errors.NotFound, "No such file or directory"),
        ("x" * 256, errors.InvalidRequest, "File name too long"),
    ]:
        with pytest.raises(WireError, match=what) as caught:
            write_all([*site.handoffs, (f"{site.base}/{name}", "m", "/m")])
        assert type(caught.value) is kind
        assert caught.value.hint
        assert site.entries() == before


def test_a_dangling_link_into_a_directory_that_is_there(site: Site) -> None:
    (site.base / "dangling").symlink_to("d/new.json")
    write_all([(str(site.base / "dangling"), "m0", "/srv/models/0")])
    assert os.readlink(site.base / "dangling") == "d/new.json"
    assert (site.base / "d" / "new.json").read_bytes() == content(0)


def test_the_link_of_another_user_is_not_followed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix_files, "is_trusted", lambda status: not stat.S_ISLNK(status.st_mode))
    with pytest.raises(errors.PermissionDenied, match=r"link\.json is a symbolic link that another user made"):
        write_all(site.handoffs)
    assert site.entries() == site.before


def test_who_is_trusted() -> None:
    def owned(uid: int) -> os.stat_result:
        return os.stat_result((stat.S_IFLNK, 1, 1, 1, uid, 1, 1, 1, 1, 1))

    me = os.geteuid()
    assert [posix_files.is_trusted(owned(uid)) for uid in (0, me, me + 1)] == [True, True, False]


def test_two_handoffs_with_one_target(site: Site) -> None:
    (site.base / "alias").symlink_to("a")
    before = site.entries()
    for second in ("a/one.json", "alias/one.json"):
        with pytest.raises(errors.InvalidRequest, match="two contents have the same target"):
            write_all([(site.paths[0], "m", "/m"), (f"{site.base}/{second}", "n", "/n")])
        assert site.entries() == before
