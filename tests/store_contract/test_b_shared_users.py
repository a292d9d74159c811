"""The founding contract, part B: a root for several users, one blob per digest. Each other user is a real process."""

from __future__ import annotations

import grp
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.command import COMMAND
from rigs.other_user import ctl_as
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import ALLOW_ROOT, FOREIGN_UID, connect_as, needs_root, write_access
from store_contract.conftest import Done

CONTENT = b"GGUF" + bytes(5000)
HEX = hashlib.sha256(CONTENT).hexdigest()
OTHER_UID = FOREIGN_UID + 1


@pytest.fixture
def open_room() -> Iterator[Path]:
    """A room that other users may enter: those of pytest are for their owner only."""
    room = tempfile.mkdtemp(prefix="modeld-", dir="/tmp")
    os.chmod(room, 0o755)
    yield Path(room)
    shutil.rmtree(room)


@pytest.fixture
def shared(open_room: Path) -> Iterator[RealDaemon]:
    made = RealDaemon(str(open_room))
    yield made
    made.close()


def command_without_capabilities(daemon: RealDaemon, *arguments: str, **environ: str) -> Done:
    """`modelctl`, and the daemon that it starts, for whom file modes count also when root runs the tests."""
    powerless = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*powerless, *COMMAND, *arguments],
        env=daemon.environ | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def own_file(daemon: RealDaemon, name: str, uid: int, content: bytes = CONTENT) -> str:
    path = daemon.file(name, content)
    os.chown(path, uid, uid)
    os.chmod(path, 0o600)
    return path


def add_as(daemon: RealDaemon, uid: int, path: str, *, handed: bool = True, **fields: Any) -> dict[str, Any]:
    with connect_as(daemon.socket, uid) as wire:
        assert wire.read()["type"] == "hello"
        given = wire.hand_over(path) if handed else {"path": path}
        return wire.ask("model.add", **given, **fields)


# -- digests


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEX[:-1], "64 hex characters"),
        (HEX + "0", "64 hex characters"),
        (HEX[:-1] + "g", "0-9 and a-f"),
        (HEX.upper(), "0-9 and a-f"),
        (HEX[:-1] + "A", "0-9 and a-f"),
    ],
)
def test_digest_wrong_length_and_wrong_alphabet_are_two_errors(daemon: RealDaemon, text: str, says: str) -> None:
    reply = daemon.ask("model.add", path=daemon.file("m.gguf", CONTENT), name="m", sha256=text)
    assert reply["code"] == "invalid_digest"
    assert says in reply["message"]
    assert os.listdir(f"{daemon.root}/manifests") == []


@pytest.mark.parametrize("text", [HEX, f"sha256:{HEX}"])
def test_digest_exactly_64_lowercase_hex_characters(daemon: RealDaemon, text: str) -> None:
    reply = daemon.ask("model.add", path=daemon.file("m.gguf", CONTENT), name="m", sha256=text)
    assert reply["value"]["blob"] == f"sha256:{HEX}"


# -- one inode


@needs_root
def test_two_users_who_add_the_same_content_end_at_one_inode(shared: RealDaemon) -> None:
    write_access(shared, {str(FOREIGN_UID): "write", str(OTHER_UID): "write"})
    shared.start()
    paths = set()
    for uid, name in ((FOREIGN_UID, "ada"), (OTHER_UID, "ben")):
        reply = add_as(shared, uid, path=own_file(shared, f"{name}.gguf", uid), name=name)
        assert reply["type"] == "result", reply
        paths.add(reply["value"]["path"])
    assert paths == {f"{shared.root}/blobs/sha256/{HEX[:2]}/{HEX}/data"}
    blobs = [path for path, _, files in os.walk(f"{shared.root}/blobs") if "data" in files]
    assert len(blobs) == 1


@needs_root
def test_two_users_of_a_group_share_a_store(shared: RealDaemon) -> None:
    """`[store] group`: directories set-group-ID, blobs 0444, manifests readable by the group."""
    group = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, os.getgid()))
    users = f'users = {{ "{FOREIGN_UID}" = "write", "{OTHER_UID}" = "write" }}'
    shared.configure(f'[store]\ngroup = "{group.gr_name}"\n[access]\n{users}\n{ALLOW_ROOT}')
    shared.start(prefix=("sh", "-c", 'umask 077; exec "$0" "$@"'))
    values = {}
    for uid, name in ((FOREIGN_UID, "ada"), (OTHER_UID, "ben")):
        source = Path(shared.room, name)
        source.mkdir()
        (source / "m.gguf").write_bytes(CONTENT)
        (source / "config.json").write_bytes(b"{}")
        for path in (source, *source.iterdir()):
            os.chown(path, uid, uid)
        reply = add_as(shared, uid, path=str(source), name=name)
        assert reply["type"] == "result", reply
        values[name] = reply["value"]
    inodes = {os.stat(os.path.join(value["path"], "m.gguf")).st_ino for value in values.values()}
    assert inodes == {os.stat(f"{shared.root}/blobs/sha256/{HEX[:2]}/{HEX}/data").st_ino}
    for directory, _, files in os.walk(shared.root):
        info = os.stat(directory)
        assert (info.st_gid, stat.S_IMODE(info.st_mode)) == (group.gr_gid, 0o2750), directory
        for file in files:
            where = f"{directory}/{file}"
            info = os.lstat(where)
            if file == "data" or "/trees/" in where:
                assert (info.st_gid, stat.S_IMODE(info.st_mode)) == (group.gr_gid, 0o444), where
            elif where.endswith(".json"):
                assert (info.st_gid, stat.S_IMODE(info.st_mode)) == (group.gr_gid, 0o640), where
    # A member of the group other than the daemon reads a model by the path that was given out.
    read = subprocess.run(
        ["cat", os.path.join(values["ada"]["path"], "m.gguf")],
        user=OTHER_UID,
        group=group.gr_gid,
        extra_groups=[],
        capture_output=True,
        check=True,
    )
    assert read.stdout == CONTENT


# -- permission


def test_permission_denied_on_the_root_is_exit_13_with_a_hint_and_no_fallback(stopped: RealDaemon) -> None:
    home = Path(stopped.room, "home")
    home.mkdir()
    os.mkdir(stopped.root, 0o700)
    if os.geteuid() == 0:
        os.chown(stopped.root, FOREIGN_UID, FOREIGN_UID)
    else:
        os.chmod(stopped.root, 0)
    try:
        done = command_without_capabilities(stopped, "list", HOME=str(home))
    finally:
        os.chmod(stopped.root, 0o700)
    assert done.returncode == 13, done.stderr
    assert f"permission denied on {stopped.root}" in done.stderr
    assert f"Run modeld as the user that owns {stopped.root}, or change the owner or mode" in done.stderr
    fallen_back = [path for path in home.rglob("*") if path.name in ("models", "blobs", "manifests")]
    assert fallen_back == [], "it never falls back to the home directory"
    assert os.listdir(stopped.root) == []


@pytest.mark.parametrize("obstacle", ["file", "dangling", "loop", "below a file", "too long"])
def test_a_root_that_cannot_be_created_is_exit_1(stopped: RealDaemon, obstacle: str) -> None:
    match obstacle:
        case "file":
            stopped.file("models", b"in the way")
        case "dangling":
            os.symlink(f"{stopped.room}/nowhere", stopped.root)
        case "loop":
            os.symlink(stopped.root, stopped.root)
        case "below a file":
            stopped.root = stopped.file("a-file", b"in the way") + "/models"
        case "too long":
            stopped.root = f"{stopped.room}/{'x' * 300}"
    stopped.environ["MODELS_HOME"] = stopped.root
    done = subprocess.run(
        [*COMMAND, "list"],
        env=stopped.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert stopped.root in done.stderr
    assert "hint: " in done.stderr
    made = [path for path in Path(stopped.room).rglob("*") if path.name in ("blobs", "manifests", "models")]
    assert [str(path) for path in made if str(path) != stopped.root] == [], "it never falls back to another place"


@needs_root
def test_a_peer_adds_only_what_it_could_read_itself(shared: RealDaemon) -> None:
    """By path nothing, whatever its mode; the command opens it with the user's rights."""
    write_access(shared, {str(FOREIGN_UID): "write"})
    shared.start()
    secret = Path(shared.room, "secret")
    secret.mkdir(mode=0o711)
    os.chmod(secret, 0o711)
    (secret / "m.gguf").write_bytes(CONTENT)
    os.chmod(secret / "m.gguf", 0o600)
    for mode in (0o711, 0o755):
        os.chmod(secret, mode)
        for path in (secret, secret / "m.gguf"):
            reply = add_as(shared, FOREIGN_UID, str(path), handed=False, name="stolen")
            assert reply["code"] == "permission_denied", reply
            done = ctl_as(shared, "add", str(path), "--name", "stolen")
            assert done.returncode == 13, done
    assert os.listdir(f"{shared.root}/manifests") == []
    assert os.listdir(f"{shared.root}/.modeld/staging") == []
    os.chmod(secret / "m.gguf", 0o644)
    assert ctl_as(shared, "add", str(secret), "--name", "given").returncode == 0
