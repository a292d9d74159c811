"""`add --move` and `add --link`: no copy, no lost byte after any failure, and no path to unverified bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.other_user import ctl_as
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import FOREIGN_UID, connect_as, needs_root, write_access
from rigs.several_files import EXAMPLE, assert_nothing_there, directory, leftovers, shards, tree_of
from store_contract.conftest import Ctl

CONTENT = b"GGUF" + bytes(70_000)
HEX = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(room: Path) -> Path:
    path = room / "m.gguf"
    path.write_bytes(CONTENT)
    path.chmod(0o640)
    return path


def assert_as_it_was(source: Path) -> None:
    info = source.stat()
    assert (source.read_bytes(), info.st_mode & 0o777, info.st_nlink) == (CONTENT, 0o640, 1)


def blob_of(daemon: RealDaemon) -> os.stat_result:
    return os.stat(f"{daemon.root}/blobs/sha256/{HEX[:2]}/{HEX}/data")


# -- move


def test_move_makes_the_file_itself_the_blob(source: Path, ctl: Ctl) -> None:
    inode = source.stat().st_ino
    added = ctl.json("add", str(source), "--move")
    assert added["blob"] == f"sha256:{HEX}"
    assert not source.exists()
    info = os.stat(ctl.path("m"))
    assert (info.st_ino, info.st_mode & 0o777, info.st_nlink) == (inode, 0o444, 1)
    assert leftovers(ctl.daemon) == []
    verified = ctl.json("show", "m")["verified_at"]
    assert verified is not None, "taking the source's name away does not make the blob look changed"


def test_move_of_a_directory_leaves_only_what_is_not_the_models(room: Path, ctl: Ctl) -> None:
    gone, kept = directory(room, "gone"), directory(room, "kept", EXAMPLE | {".hidden": b"x", "more.txt": b"y"})
    assert ctl("add", str(gone), "--move").returncode == 0
    assert not gone.exists()
    assert tree_of(ctl.path("gone")) == EXAMPLE
    assert ctl("add", str(kept), "--move").returncode == 0
    assert tree_of(str(kept)) == {".hidden": b"x"}
    assert tree_of(ctl.path("kept")) == EXAMPLE | {"more.txt": b"y"}


def test_move_of_shards(room: Path, ctl: Ctl) -> None:
    parts = shards(room)
    contents = {part.name: part.read_bytes() for part in parts}
    assert ctl("add", str(parts[1]), "--move").returncode == 0
    assert not any(part.exists() for part in parts)
    assert tree_of(ctl.path("big")) == contents


def test_move_of_bytes_that_are_there_already_takes_the_source_away(source: Path, ctl: Ctl) -> None:
    copy = ctl.daemon.file("copy.gguf", CONTENT)
    ctl.json("add", copy, "--name", "first")
    inode = blob_of(ctl.daemon).st_ino
    assert ctl.json("add", str(source), "--move", "--name", "second")["reused"]
    assert not source.exists()
    assert (blob_of(ctl.daemon).st_ino, blob_of(ctl.daemon).st_nlink) == (inode, 1)


def test_move_is_finished_by_the_next_try_when_only_the_sources_name_was_left(source: Path, ctl: Ctl) -> None:
    """As a crash leaves it between the publication and the last step."""
    ctl.json("add", str(source), "--move")
    os.link(ctl.path("m"), source)
    assert ctl.json("add", str(source), "--move")["name"] == "m"
    assert not source.exists()
    assert blob_of(ctl.daemon).st_nlink == 1


def test_move_across_filesystems_copies_and_then_removes(elsewhere: Path, ctl: Ctl) -> None:
    source = elsewhere / "m.gguf"
    source.write_bytes(CONTENT)
    ctl.json("add", str(source), "--move")
    assert Path(ctl.path("m")).read_bytes() == CONTENT
    assert not source.exists()
    whole = directory(elsewhere)
    ctl.json("add", str(whole), "--move")
    assert tree_of(ctl.path("gemma")) == EXAMPLE
    assert not whole.exists()


def test_move_that_fails_puts_everything_back(source: Path, ctl: Ctl) -> None:
    assert ctl("add", str(source), "--move", "--sha256", "0" * 64).returncode == 6
    assert_as_it_was(source)
    assert_nothing_there(ctl.daemon)
    ctl.json("add", ctl.daemon.file("other.gguf", b"GGUF other"), "--name", "taken")
    assert ctl("add", str(source), "--move", "--name", "taken").returncode == 5
    assert_as_it_was(source)
    with source.open("r+b"):
        done = ctl("add", str(source), "--move")
    assert done.returncode == 10
    assert "open for writing" in done.stderr
    assert_as_it_was(source)
    assert leftovers(ctl.daemon) == []


def test_move_of_one_of_several_names_leaves_the_others_their_own_bytes(source: Path, ctl: Ctl) -> None:
    """Whoever has another name of the file could write into the store by it: so it is copied."""
    other = source.with_name("other-name.gguf")
    os.link(source, other)
    ctl.json("add", str(source), "--move")
    assert not source.exists()
    assert_as_it_was(other)
    assert blob_of(ctl.daemon).st_ino != other.stat().st_ino


def test_move_of_a_link_is_refused(source: Path, ctl: Ctl) -> None:
    link = source.with_name("link.gguf")
    link.symlink_to(source)
    done = ctl("add", str(link), "--move")
    assert done.returncode == 2, done.stderr
    assert "is a symbolic link" in done.stderr
    assert_as_it_was(source)
    assert link.is_symlink()


@pytest.mark.parametrize("how", ["--move", "--link"])
def test_what_lies_in_the_store_can_be_neither_moved_nor_linked(source: Path, ctl: Ctl, how: str) -> None:
    ctl.json("add", str(source))
    done = ctl("add", ctl.path("m"), how, "--name", "other")
    assert done.returncode == 2, done.stderr
    assert "lies in the store itself" in done.stderr
    assert Path(ctl.path("m")).read_bytes() == CONTENT


def test_move_and_link_together_are_refused(source: Path, ctl: Ctl) -> None:
    assert ctl("add", str(source), "--move", "--link").returncode == 2
    reply = ctl.daemon.ask("model.add", path=str(source), move=True, link=True)
    assert reply["code"] == "invalid_request"
    assert_as_it_was(source)


@pytest.fixture
def shared() -> Iterator[RealDaemon]:
    """A daemon that another user may write to, in a room that this user may enter."""
    room = tempfile.mkdtemp(prefix="modeld-", dir="/tmp")
    os.chmod(room, 0o755)
    made = RealDaemon(room)
    write_access(made, {str(FOREIGN_UID): "write"})
    yield made.start()
    made.close()
    shutil.rmtree(room)


@needs_root
@pytest.mark.parametrize("how", ["move", "link"])
def test_a_peer_neither_takes_away_nor_makes_read_only_what_is_not_its_own(shared: RealDaemon, how: str) -> None:
    source = Path(shared.file("m.gguf", CONTENT))
    source.chmod(0o640)
    os.chown(source, 0, FOREIGN_UID)
    with connect_as(shared.socket, FOREIGN_UID) as wire:
        assert wire.read()["type"] == "hello"
        reply = wire.ask("model.add", path=str(source), **{how: True})
    assert reply["code"] == "permission_denied", reply
    assert_as_it_was(source)
    assert_nothing_there(shared)


@needs_root
def test_a_moved_file_of_a_peer_is_no_longer_the_peers(shared: RealDaemon) -> None:
    """Its owner could make it writable again. The command takes it away, and the daemon copies it."""
    own = Path(shared.room, "own")
    own.mkdir()
    source = own / "m.gguf"
    source.write_bytes(CONTENT)
    for path in (own, source):
        os.chown(path, FOREIGN_UID, FOREIGN_UID)
    with connect_as(shared.socket, FOREIGN_UID) as wire:
        assert wire.read()["type"] == "hello"
        given = wire.hand_over(str(source))
        assert wire.ask("model.add", **given, move=True)["code"] == "invalid_request"
    done = ctl_as(shared, "add", str(source), "--move")
    assert done.returncode == 0, done
    assert not source.exists()
    info = blob_of(shared)
    assert (info.st_uid, info.st_mode & 0o777) == (0, 0o444)


@needs_root
def test_only_the_daemons_own_user_links(shared: RealDaemon) -> None:
    """The owner of a linked file may have mapped it, and change the bytes of a blob that was verified."""
    own = Path(shared.room, "own")
    own.mkdir()
    source = own / "m.gguf"
    source.write_bytes(CONTENT)
    for path in (own, source):
        os.chown(path, FOREIGN_UID, FOREIGN_UID)
    before = source.stat()
    with connect_as(shared.socket, FOREIGN_UID) as wire:
        assert wire.read()["type"] == "hello"
        reply = wire.ask("model.add", path=str(source), link=True)
        assert reply["code"] == "permission_denied", reply
        assert "only the daemon's own user" in reply["message"]
        assert "copies" in reply["hint"]
        assert wire.ask("model.add", **wire.hand_over(str(source)), link=True)["code"] == "invalid_request"
        assert wire.ask("model.add", **wire.hand_over(str(source)))["type"] == "result"
    done = ctl_as(shared, "add", str(source), "--link")
    assert (done.returncode, "only the daemon's own user" in done.stderr) == (13, True)
    after = source.stat()
    assert (after.st_mode, after.st_uid, after.st_nlink) == (before.st_mode, FOREIGN_UID, 1)
    assert blob_of(shared).st_ino != before.st_ino


# -- link


def test_link_shares_the_bytes_and_makes_them_read_only(source: Path, ctl: Ctl) -> None:
    ctl.json("add", str(source), "--link")
    info = source.stat()
    assert (info.st_ino, info.st_mode & 0o777, info.st_nlink) == (blob_of(ctl.daemon).st_ino, 0o444, 2)
    assert ctl.path("m") == ctl.json("show", "m")["path"]
    assert ctl.json("add", str(source), "--link")["reused"], "again is success"
    assert ctl.json("list")[0]["state"] == "ready"
    assert source.stat().st_nlink == 2


def test_link_a_change_of_the_signature_alone_is_verified_before_the_path_is_given_out(source: Path, ctl: Ctl) -> None:
    ctl.json("add", str(source), "--link")
    verified = ctl.json("show", "m")["verified_at"]
    source.touch()
    shown = ctl.json("show", "m")
    assert (shown["state"], "path" in shown) == ("suspect", False)
    assert Path(ctl.path("m")).read_bytes() == CONTENT
    shown = ctl.json("show", "m")
    assert (shown["state"], shown["verified_at"] > verified) == ("ready", True)


@pytest.mark.parametrize("keep_times", [False, True])
def test_link_bytes_that_changed_are_never_given_out(source: Path, ctl: Ctl, keep_times: bool) -> None:
    ctl.json("add", str(source), "--link")
    before = source.stat()
    source.chmod(0o600)
    with source.open("r+b") as file:
        file.seek(5)
        file.write(b"x")
    if keep_times:
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _attempt in range(2):
        done = ctl("path", "m")
        assert (done.returncode, done.stdout) == (6, "")
    assert ctl.json("list")[0]["state"] == "failed"
    good = ctl.daemon.file("good.gguf", CONTENT)
    assert ctl("add", good, "--name", "m").returncode == 0
    assert Path(ctl.path("m")).read_bytes() == CONTENT
    assert source.read_bytes() != CONTENT


@pytest.mark.parametrize("catalogue", ["kept", "lost"])
def test_link_a_change_while_no_daemon_runs_is_noticed(source: Path, ctl: Ctl, catalogue: str) -> None:
    ctl.json("add", str(source), "--link")
    assert ctl.daemon.terminate() == 0
    source.chmod(0o600)
    source.write_bytes(CONTENT[:-1] + b"x")
    if catalogue == "lost":
        for path in Path(ctl.daemon.root, ".modeld").glob("catalog*"):
            path.unlink()
    ctl.daemon.start()
    done = ctl("path", "m")
    assert (done.returncode, done.stdout) == (6, "")


def test_link_a_hundred_who_ask_for_a_suspect_have_it_verified_once(source: Path, ctl: Ctl) -> None:
    ctl.json("add", str(source), "--link")
    source.touch()
    with ctl.daemon.connect() as wire:
        open_ = {wire.request("model.resolve", name="m") for _ in range(60)}
        while open_:
            reply = wire.read()
            assert reply["type"] == "result", reply
            open_.remove(reply["id"])
    history = ctl.json("show", "m")["history"]
    assert [outcome["outcome"] for outcome in history] == ["added", "verified"]


def test_link_on_another_filesystem_is_refused(elsewhere: Path, ctl: Ctl) -> None:
    source = elsewhere / "m.gguf"
    source.write_bytes(CONTENT)
    source.chmod(0o640)
    done = ctl("add", str(source), "--link")
    assert done.returncode == 1, done.stderr
    assert "on another filesystem" in done.stderr
    assert "without --link" in done.stderr
    assert_as_it_was(source)
    assert_nothing_there(ctl.daemon)


def test_link_that_fails_leaves_the_source_as_it_was(source: Path, ctl: Ctl) -> None:
    assert ctl("add", str(source), "--link", "--sha256", "0" * 64).returncode == 6
    assert_as_it_was(source)
    assert_nothing_there(ctl.daemon)
    assert not os.path.exists(f"{ctl.daemon.root}/.modeld/linked/{HEX}")


def test_link_to_bytes_that_are_there_already_leaves_the_source_alone(source: Path, ctl: Ctl) -> None:
    ctl.json("add", ctl.daemon.file("copy.gguf", CONTENT), "--name", "first")
    assert ctl.json("add", str(source), "--link", "--name", "second")["reused"]
    assert_as_it_was(source)
    source.write_bytes(b"changed")
    assert Path(ctl.path("second")).read_bytes() == CONTENT


def test_link_of_a_directory_is_shown_by_symbolic_links(room: Path, ctl: Ctl) -> None:
    """A hard link in the tree would change the signature that every answer compares."""
    source = directory(room)
    ctl.json("add", str(source), "--link")
    tree = ctl.path("gemma")
    assert tree_of(tree) == EXAMPLE
    assert os.path.islink(f"{tree}/config.json")
    shutil.rmtree(tree)
    assert tree_of(ctl.path("gemma")) == EXAMPLE
    assert ctl.json("list")[0]["state"] == "ready"
    (source / "config.json").chmod(0o600)
    (source / "config.json").write_bytes(b"[]")
    done = ctl("path", "gemma", "--file", "README.md")
    assert (done.returncode, done.stdout) == (6, "")


def test_link_of_what_is_a_hard_link_to_a_blob_already(source: Path, ctl: Ctl) -> None:
    """Somebody has linked to the store's own file: from here on it counts as shared."""
    ctl.json("add", str(source), "--name", "first")
    alias = source.with_name("alias.gguf")
    os.link(ctl.path("first"), alias)
    assert ctl.json("add", str(alias), "--link", "--name", "second")["reused"]
    assert ctl.json("list")[0]["state"] == "ready"
    assert alias.stat().st_nlink == 2
    alias.chmod(0o600)
    alias.write_bytes(b"spoilt")
    for name in ("first", "second"):
        assert ctl("path", name).stdout == ""


def test_link_whose_model_is_removed_and_swept_leaves_the_source(source: Path, stopped: RealDaemon) -> None:
    stopped.configure('[store]\ngrace = "0s"\n')
    ctl = Ctl(stopped.start())
    ctl.json("add", str(source), "--link")
    assert ctl("rm", "m").returncode == 0
    ctl.json("sweep")
    assert (source.read_bytes(), source.stat().st_nlink) == (CONTENT, 1)
    assert not os.path.exists(f"{stopped.root}/.modeld/linked/{HEX}")
