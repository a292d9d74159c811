"""A store on a disk without a free block: what is there is served, what makes room works, no restart is needed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.real_daemon import RealDaemon

DISK_MIB = 24


@pytest.fixture
def small(room: Path) -> Iterator[RealDaemon]:
    """A daemon whose store lies on a small disk of its own, without the usual floor of free space."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small filesystem needs root")
    disk = room / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    daemon = RealDaemon(str(room), {"MODELS_HOME": str(disk / "models"), "MODELD_STORE_MIN_FREE": "0"})
    daemon.environ["MODELD_STORE_GRACE"] = "0s"
    try:
        yield daemon
    finally:
        daemon.close()
        subprocess.run(["umount", str(disk)], check=True)


def fill(room: str) -> str:
    """The disk to its last block."""
    path = os.path.join(room, "disk", "fill")
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096) == 4096:
                pass
        except OSError:
            pass
    assert os.statvfs(path).f_bavail == 0
    return path


def test_a_full_disk_is_refused_relieved_and_used_again(small: RealDaemon) -> None:
    small.start()
    kept = small.file("kept.bin", os.urandom(3 << 20))
    assert small.ask("model.add", path=kept, name="kept")["type"] == "result"
    fill(small.room)

    wanted = small.file("wanted.bin", os.urandom(2 << 20))
    refused = small.ask("model.add", path=wanted, name="wanted")
    assert refused["code"] == "no_space"
    assert refused["hint"]
    assert small.ask("daemon.status")["type"] == "result"
    assert [model["name"] for model in small.ask("model.list")["value"]["models"]] == ["kept"]
    assert small.ask("model.resolve", name="kept")["value"]["state"] == "ready"

    assert small.ask("model.remove", name="kept")["type"] == "result"
    swept = small.ask("store.sweep")
    assert swept["type"] == "result", swept
    assert swept["value"]["freed_bytes"] >= 3 << 20
    assert small.ask("model.add", path=wanted, name="wanted")["type"] == "result"
    assert small.ask("model.resolve", name="wanted")["value"]["state"] == "ready"
    assert os.listdir(os.path.join(small.environ["MODELS_HOME"], ".modeld", "staging")) == []


def test_a_daemon_starts_on_a_full_disk(small: RealDaemon) -> None:
    small.start()
    path = small.file("kept.bin", os.urandom(1 << 20))
    assert small.ask("model.add", path=path, name="kept")["type"] == "result"
    assert small.terminate() == 0
    fill(small.room)
    small.start()
    assert small.ask("model.resolve", name="kept")["value"]["state"] == "ready"
    assert small.ask("model.remove", name="kept")["type"] == "result"
