"""The rights of what the daemon makes are its decision: neither a umask's nor those of whoever can read a lock file."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.real_daemon import RealDaemon
from rigs.rough_peers import FOREIGN_UID, needs_root
from rigs.waiting import wait_until

GROUP = 64_003
FOR_ALL = {stat.S_IFDIR: {0o755}, stat.S_IFREG: {0o444, 0o600, 0o644}}
FOR_A_GROUP = {stat.S_IFDIR: {0o2750, 0o755}, stat.S_IFREG: {0o444, 0o600, 0o640, 0o644, 0o660}}

_HOLD = """
import fcntl, os, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
for path in sys.argv[2:]:
    try:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError:
        continue
    except BlockingIOError:
        pass  # it only has to wait
    print(path, flush=True)
print("done", flush=True)
os.close(1)
sys.stdin.read()
"""


@pytest.fixture
def mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def used(daemon: RealDaemon) -> RealDaemon:
    """Started, and all kinds of things made in its store."""
    daemon.start()
    directory = Path(daemon.room, "several")
    directory.mkdir()
    (directory / "model-00001-of-00002.gguf").write_bytes(b"GGUF" + bytes(100))
    (directory / "model-00002-of-00002.gguf").write_bytes(b"GGUF" + bytes(200))
    (directory / "sub").mkdir()
    (directory / "sub" / "config.json").write_bytes(b"{}")
    for path, fields in (
        (daemon.file("a.bin", b"a"), {}),
        (daemon.file("b.bin", bytes(5_000_000)), {}),
        (daemon.file("l.bin", b"linked"), {"link": True}),
        (str(directory), {}),
    ):
        added = daemon.ask("model.add", path=path, force_format=True, **fields)
        assert added["type"] == "result", added
    wrong = daemon.ask("model.add", path=daemon.file("w.bin", b"wrong"), sha256="0" * 64)
    assert wrong["code"] == "digest_mismatch"
    assert daemon.ask("model.resolve", name="several")["type"] == "result"
    assert daemon.ask("model.copy", source="a", destination="c")["type"] == "result"
    assert daemon.ask("model.remove", name="c")["type"] == "result"
    return daemon


def modes(root: str) -> dict[str, tuple[int, int]]:
    """Type and rights of everything below the root, by path."""
    found = {}
    for directory, _, names in os.walk(root):
        for path in (directory, *(os.path.join(directory, name) for name in names)):
            mode = os.lstat(path).st_mode
            if not stat.S_ISLNK(mode):
                found[path] = (stat.S_IFMT(mode), stat.S_IMODE(mode))
    return found


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("group", [False, True])
def test_the_rights_in_the_store_do_not_depend_on_the_umask(
    stopped: RealDaemon, mask: None, umask: int, group: bool
) -> None:
    if group:
        if os.getuid() != 0:
            pytest.skip("only root may give a directory to another group")
        stopped.environ["MODELD_STORE_GROUP"] = str(GROUP)
    os.makedirs(stopped.root)
    os.umask(umask)
    used(stopped)
    allowed = FOR_A_GROUP if group else FOR_ALL
    odd = {path: oct(mode) for path, (kind, mode) in modes(stopped.root).items() if mode not in allowed[kind]}
    assert odd == {}


@needs_root
def test_a_stranger_can_hold_none_of_the_locks(shared: RealDaemon) -> None:
    used(shared).terminate()
    names = ("a", "b", "l", "several")
    locks = [f"{shared.root}/.modeld/lock", *(f"{shared.root}/locks/{name}.lock" for name in names)]
    for path in locks:  # as an earlier modeld made them
        os.chmod(path, 0o644)
    used_again = shared.start()
    for name in names:
        assert used_again.ask("model.move", source=name, destination=f"{name}2")["type"] == "result"
    stranger = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(FOREIGN_UID), *locks],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert stranger.stdout is not None
        held = list(iter(stranger.stdout.readline, ""))
        assert held == ["done\n"]
        assert used_again.ask("model.remove", name="a2")["type"] == "result"
    finally:
        stranger.communicate()


def test_another_tool_of_the_group_takes_the_lock_of_a_name(stopped: RealDaemon) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may give a directory to another group")
    stopped.environ["MODELD_STORE_GROUP"] = str(GROUP)
    used(stopped)
    path = f"{stopped.root}/locks/a.lock"
    info = os.stat(path)
    assert (info.st_gid, stat.S_IMODE(info.st_mode)) == (GROUP, 0o660)
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with stopped.connect() as wire:
            number = wire.request("model.remove", name="a")
            wait_until(lambda: stopped.ask("job.list")["value"]["jobs"][0]["state"] in ("queued", "running"))
            fcntl.flock(file, fcntl.LOCK_UN)
            assert wire.terminal(number)["type"] == "result"
