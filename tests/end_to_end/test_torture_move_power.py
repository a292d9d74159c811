"""The power goes at many moments of a move of the store: the old directory is the store or the new one, with all its
models, and the next start ends the move."""

from __future__ import annotations

import os
import random

import pytest

from end_to_end.test_names_killed import whole_models
from end_to_end.test_torture_power_replay import disk, open_jobs, running
from rigs.filesystems import FILESYSTEMS
from rigs.real_daemon import RealDaemon
from rigs.recorded_disk import RecordedDisk
from rigs.rough_peers import incidents, scaled
from rigs.waiting import wait_until

__all__ = ["disk"]

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

CRASHES = scaled(110, 1)
"""Of each filesystem."""

SIZES = (0, 1, 4096, 70_000, 1 << 20, 5 << 20)


@pytest.mark.parametrize("disk", FILESYSTEMS, indirect=True)
def test_a_move_survives_every_crash_of_the_disk(stopped: RealDaemon, disk: RecordedDisk) -> None:
    target = f"{disk.directory}/new"
    with running(stopped, disk) as daemon:
        for size in SIZES:
            add(daemon, f"m{size}", os.urandom(size))
        before = whole_models(daemon)
        first = disk.log.now()
        with daemon.connect() as wire:
            number = wire.request("store.move", path=target)
            wire.until(number, "accepted")
            accepted = disk.log.now()
            assert wire.terminal(number)["type"] == "result"
        answered = disk.log.now()
        add(daemon, "later", b"later")
        after = whole_models(daemon)
        last = disk.log.now()
    chance = random.Random(12)
    replay = disk.replay()
    dropped = in_new = 0
    for moment in sorted([*replay.moments(chance, CRASHES, first, last), answered, last]):
        dropped += replay.crash(moment, chance, image := f"{stopped.room}/left")
        with disk.after_crash(image):
            try:
                in_new += os.path.islink(stopped.root)
                assert_survived(stopped, before if moment < last else after, target, begun=moment >= accepted)
                assert moment < answered or os.path.islink(stopped.root)
            finally:
                stopped.kill()
    assert disk.has_recorded_all(replay)
    print(
        f"{disk.filesystem.name}: {CRASHES + 2} crashes, {dropped} pieces dropped, {in_new} times in the new directory"
    )


def add(daemon: RealDaemon, name: str, content: bytes) -> None:
    assert daemon.ask("model.add", path=daemon.file(f"{name}.bin", content), name=name)["type"] == "result"


def assert_survived(daemon: RealDaemon, models: dict[str, tuple[str, ...]], target: str, *, begun: bool) -> None:
    assert whole_models(daemon).items() >= models.items()
    daemon.start()
    wait_until(lambda: not open_jobs(daemon), what="the end of all jobs")
    assert not begun or os.readlink(daemon.root) == target
    assert whole_models(daemon).items() >= models.items()
    assert daemon.ask("model.verify", all=True)["value"]["ok"] is True
    assert daemon.ask("daemon.status")["value"]["recovery"]["catalog_set_aside"] is None
    assert daemon.terminate() == 0
    assert incidents(daemon) == []
