"""The daemon is killed at each system call of a move: the old directory is the store or the new one, and the next start
goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rigs import moving_rig
from rigs.moving_rig import Readers, faults, fill, opened
from rigs.real_daemon import TESTS
from rigs.rough_peers import SHORT
from rigs.traced_daemon import strace

CALLS = (
    *("pwritev2", "pwrite64", "fallocate", "ftruncate", "copy_file_range", "fchmod", "chmod", "utimensat", "flock"),
    *("fsync", "fdatasync", "syncfs", "mkdir", "linkat", "symlink", "rename", "renameat2", "unlink"),
)
"""All that change the disk."""

STRIDE = 40 if SHORT else 1
"""Of the first calls each one is hit, further on every so many."""

_FIRST = 1 if SHORT else 3

pytestmark = [pytest.mark.torture, pytest.mark.usefixtures("strace")]

__all__ = ["strace"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes]]:
    room = tmp_path_factory.mktemp("template")
    (room / "sources").mkdir()
    with opened(str(room / "models")) as store:
        contents = asyncio.run(fill(store, str(room / "sources")))
    return str(room / "models"), contents


def run(root: str, target: str, *prefix: str) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, moving_rig.__file__, root, target]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": TESTS}, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_each_call(tmp_path: Path, template: tuple[str, dict[str, bytes]], call: str) -> None:
    made, contents = template
    nth, before, after = 1, 0, 0
    while True:
        room = tmp_path / str(nth)
        room.mkdir()
        root, target, log = str(room / "models"), str(room / "new"), str(room / "log")
        subprocess.run(["cp", "-a", made, root], check=True)
        inject = f"inject={call}:signal=KILL:when={nth}"
        with Readers(root, contents) as readers:
            killed = run(root, target, "strace", "-f", "-qq", "-o", log, "-e", f"trace={call}", "-e", inject)
        assert readers.wrong == [], f"{call} {nth}"
        assert faults(root, contents) == [], f"{call} {nth}"
        if os.path.islink(root):
            after += 1
        else:
            before += 1
        again = run(root, target)
        assert again.stdout == "moved\n", f"{call} {nth}: {again.stderr}"
        assert os.readlink(root) == target
        assert faults(root, contents) == [], f"{call} {nth}"
        assert sorted(name for name in os.listdir(room) if name not in ("models", "new", "log")) == ["models.old"]
        shutil.rmtree(room)
        if killed.returncode == 0:
            break
        nth += 1 if nth < _FIRST else STRIDE
    print(f"{call}: killed {nth - 1} times; then the old directory was the store {before} times, the new one {after}")
