"""A store on a disk without a free block: what is there is served, what makes room works, no restart is needed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.pull_rig import job_state
from rigs.real_daemon import RealDaemon
from rigs.scripted_server import Reply, Server
from rigs.update_commands import command
from rigs.waiting import wait_until

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
    daemon.environ.update(MODELD_STORE_GRACE="0s", MODELD_STORE_SWEEP="off")
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


def state(daemon: RealDaemon, job: str) -> str:
    return str(daemon.ask("job.show", job=job)["value"]["state"])


def test_what_has_ended_on_a_full_disk_has_ended_after_a_kill(small: RealDaemon) -> None:
    """Also where no block comes free before: else the next start would carry out what was reported as cancelled."""
    with Server(lambda _asked: Reply(503, {"Retry-After": "300"})) as server:
        small.start()
        updates = [command(version, download_url=f"{server.url}/m.gguf") for version in ("1.0", "2.0")]
        asks: list[tuple[str, dict[str, Any]]] = [
            ("model.pull", {"ref": f"{server.url}/p.gguf", "name": "p", "on_disconnect": "continue"}),
            *(("model.update", {"command": update}) for update in updates),
        ]
        with small.connect() as wire:
            jobs = [wire.until(wire.request(op, **fields), "accepted")["job"] for op, fields in asks]
        wait_until(lambda: len(server.asked) >= len(jobs), 20, "all ask for their files")
        assert small.ask("job.pause", job=jobs[-1])["type"] == "result"
        wait_until(lambda: state(small, jobs[-1]) == "paused", 20, "the last one is paused")
        path = fill(small.room)
        for job in jobs:
            assert small.ask("job.cancel", job=job)["type"] == "result"
            assert job_state(small, job, "cancelled", "failed")
        small.kill()
        os.unlink(path)
        asked = len(server.asked)
        small.start()
        for job in jobs:
            assert state(small, job) in ("cancelled", "failed")
        for update in updates:
            repeated = small.ask("model.update", command=update)
            assert (repeated["code"], repeated["details"]["outcome"]) == ("cancelled", "failed"), repeated
        assert len(server.asked) == asked


INODES = 400


@pytest.fixture
def few_inodes(room: Path) -> Iterator[RealDaemon]:
    """A daemon whose store lies on a disk with room for few files."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small filesystem needs root")
    disk = room / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,nr_inodes={INODES}", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    daemon = RealDaemon(str(room), {"MODELS_HOME": str(disk / "models"), "MODELD_STORE_MIN_FREE": "0"})
    daemon.environ.update(MODELD_STORE_GRACE="0s", MODELD_STORE_SWEEP="off")
    try:
        yield daemon
    finally:
        daemon.close()
        subprocess.run(["umount", str(disk)], check=True)


def use_up_inodes(room: str) -> None:
    directory = os.path.join(room, "disk", "files")
    os.mkdir(directory)
    with contextlib.suppress(OSError):
        for number in range(INODES):
            with open(f"{directory}/{number}", "x"):
                pass
    assert os.statvfs(directory).f_ffree == 0


def test_a_disk_without_a_free_inode_is_served_relieved_and_used_again(few_inodes: RealDaemon) -> None:
    few_inodes.start()
    names = [f"kept{number}" for number in range(6)]
    paths = [few_inodes.file(f"{name}.bin", os.urandom(10_000)) for name in names]
    value = [few_inodes.ask("model.add", path=path, name=name) for path, name in zip(paths, names, strict=True)][-1][
        "value"
    ]
    manifest = os.path.join(few_inodes.environ["MODELS_HOME"], "manifests", "theirs.json")
    document = {"schema_version": 1, "name": "theirs", "blob": value["blob"], "size_bytes": value["size_bytes"]}
    with open(manifest, "w", encoding="utf-8") as file:
        json.dump(document, file)
    assert few_inodes.terminate() == 0
    use_up_inodes(few_inodes.room)

    few_inodes.start()
    status = few_inodes.ask("daemon.status")
    assert status["type"] == "result", status
    assert [model["name"] for model in few_inodes.ask("model.list")["value"]["models"]] == [*names, "theirs"]
    wanted = few_inodes.file("wanted.bin", os.urandom(1000))
    refused = few_inodes.ask("model.add", path=wanted, name="wanted")
    assert refused["code"] == "no_space", refused
    for name in ("theirs", *names):  # the first has no file for its lock yet
        removed = few_inodes.ask("model.remove", name=name)
        assert removed["type"] == "result", removed
    swept = few_inodes.ask("store.sweep")
    assert swept["type"] == "result", swept
    assert swept["value"]["removed"] == len(names)
    added = few_inodes.ask("model.add", path=wanted, name="wanted")
    assert added["type"] == "result", added
