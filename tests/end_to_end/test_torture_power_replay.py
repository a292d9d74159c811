"""The power goes at many moments of one run: what the disk may have had then is made from the log of its writes.

Of what was written since the last flush, random pieces are missing. What was answered is there and whole, what was in
flight is whole or absent, the next start finishes what was accepted, and the start after that finds nothing to do.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from end_to_end.test_names_killed import whole_models
from rigs.block_log import Replay
from rigs.filesystems import FILESYSTEMS
from rigs.real_daemon import RealDaemon
from rigs.recorded_clients import RecordedClient, Since, State, served, sync_directory
from rigs.recorded_disk import IMAGE_BYTES, RecordedDisk
from rigs.rough_peers import incidents, scaled, staging, status
from rigs.scripted_server import Server, file_reply, serving
from rigs.traced_daemon import strace, traced
from rigs.waiting import wait_until

__all__ = ["strace"]

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

CRASHES = scaled(110, 3)
"""Of each filesystem."""
CLIENTS = 4
STEPS = scaled(60, 10)
"""Of each client."""
STEPS_WITHOUT_SYNCS = scaled(60, 20)
"""Of each client: now and then btrfs makes all of its files durable at once, and nothing since is lost."""
KILLS = scaled(8, 1)
"""Of the daemon alone while they work: the disk sees what a start writes."""
JOBS = 1000
"""As many as a list gives, and more than there are."""


@pytest.fixture(params=FILESYSTEMS)
def disk(request: pytest.FixtureRequest, stopped: RealDaemon) -> RecordedDisk:
    filesystem = FILESYSTEMS[request.param]
    reason = filesystem.missing(stopped.room)
    if reason is not None:
        pytest.skip(reason)
    made = RecordedDisk(stopped.room, filesystem)
    stopped.root = stopped.environ["MODELS_HOME"] = f"{made.directory}/models"
    stopped.environ |= {"MODELD_STORE_MIN_FREE": "0", "MODELD_LIMITS_RUNNING_BYTES": "4"}
    return made


@pytest.fixture
def web() -> Iterator[Server]:
    with serving(lambda asked: file_reply(asked, served(asked.path))) as server:
        yield server


@contextlib.contextmanager
def running(daemon: RealDaemon, disk: RecordedDisk) -> Iterator[RealDaemon]:
    """On the recorded disk, which the end of this ends too."""
    with disk.recording():
        Path(disk.directory, "inbox").mkdir()
        sync_directory(Path(disk.directory))
        try:
            yield daemon.start()
        finally:
            daemon.kill()


def work(daemon: RealDaemon, disk: RecordedDisk, web: Server, steps: int, kills: int = 0) -> list[RecordedClient]:
    enough = threading.Event()
    clients = [RecordedClient(number, steps, daemon, disk, web, enough) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for _ in range(kills):
            enough.wait(random.uniform(0.3, 0.6))
            daemon.kill()
            daemon.start()
        for client in clients:
            client.join(600)
    finally:
        enough.set()
    for client in clients:
        client.join(30)
        if client.fault is not None:
            raise client.fault
        assert client.steps[-1].answered
    return clients


def moments_of(
    replay: Replay, clients: list[RecordedClient], first: int, chance: random.Random, count: int
) -> list[int]:
    """Every third when a client has just been answered, the others amid writes that may be lost."""
    answers = [step.answered for client in clients for step in client.steps]
    amid = replay.moments(chance, count - count // 3, first, max(answers))
    return sorted(amid + chance.choices(answers, k=count // 3))


def test_what_was_answered_survives_every_crash_of_the_disk(
    stopped: RealDaemon, disk: RecordedDisk, web: Server
) -> None:
    with running(stopped, disk) as daemon:
        first = disk.log.now()
        clients = work(daemon, disk, web, STEPS, KILLS)
    chance = random.Random(9)
    replay = disk.replay()
    dropped = 0
    for moment in moments_of(replay, clients, first, chance, CRASHES):
        dropped += replay.crash(moment, chance, image := f"{stopped.room}/left")
        with disk.after_crash(image):
            try:
                assert_survived(stopped, clients, moment)
            finally:
                stopped.kill()
    assert disk.has_recorded_all(replay)
    print(f"{disk.filesystem.name}: {CRASHES} crashes, {dropped} unflushed pieces dropped")


def assert_survived(daemon: RealDaemon, clients: list[RecordedClient], moment: int) -> None:
    assert_nothing_is_lost(daemon, clients, moment, "crashed")
    daemon.start()
    wait_until(lambda: not open_jobs(daemon), what="the end of all jobs")
    jobs = daemon.ask("job.list", limit=JOBS)["value"]["jobs"]
    assert [job for job in jobs if job["state"] != "done"] == []
    accepted = {step.job for client in clients for step in client.steps if step.job and step.accepted <= moment}
    assert accepted <= {job["id"] for job in jobs}
    assert_clean(daemon)
    assert_nothing_is_lost(daemon, clients, moment, "started")
    for client in clients:
        client.ask_again(moment)
    models = assert_nothing_is_lost(daemon, clients, moment, "asked again")
    for name in models:
        resolved = daemon.ask("model.resolve", name=name)
        assert resolved["type"] == "result"
        assert resolved["value"]["state"] == "ready"
    assert not models or daemon.ask("model.verify", all=True)["value"]["ok"] is True
    assert daemon.terminate() == 0
    daemon.start()
    recovery = assert_clean(daemon)
    assert (recovery["jobs_resumed"], recovery["staging_removed"]) == (0, 0)
    assert whole_models(daemon) == models
    assert daemon.terminate() == 0
    assert incidents(daemon) == []


def open_jobs(daemon: RealDaemon) -> list[dict[str, Any]]:
    return [
        job
        for state in ("queued", "running")
        for job in daemon.ask("job.list", state=state, limit=JOBS)["value"]["jobs"]
    ]


def assert_clean(daemon: RealDaemon) -> dict[str, Any]:
    recovery: dict[str, Any] = status(daemon)["recovery"]
    assert (recovery["models_failed"], recovery["catalog_set_aside"]) == ([], None)
    assert staging(daemon) == []
    return recovery


def assert_nothing_is_lost(daemon: RealDaemon, clients: list[RecordedClient], moment: int, since: Since) -> State:
    models = whole_models(daemon)
    for client in clients:
        client.assert_nothing_is_lost(models, moment, since)
    return models


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(
    ("disk", "calls", "path"),
    [
        *((name, "fsync,syncfs", "") for name in FILESYSTEMS),
        # ext4 and XFS make the name durable together with whatever is synced next.
        ("btrfs", "fsync", "manifests"),
    ],
    indirect=["disk"],
)
def test_a_store_without_its_syncs_is_found_out(
    stopped: RealDaemon, disk: RecordedDisk, web: Server, calls: str, path: str
) -> None:
    inject = (f"trace={calls}", f"inject={calls}:retval=0")
    with running(stopped, disk) as daemon:
        with traced(daemon, *inject, path=path and os.path.join(daemon.root, path)) as trace:
            clients = work(daemon, disk, web, STEPS_WITHOUT_SYNCS)
        assert trace.failed
    assert any_is_lost(
        stopped, disk, clients, lambda moment: assert_nothing_is_lost(stopped, clients, moment, "crashed")
    )


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_a_ledger_without_its_syncs_is_found_out(stopped: RealDaemon, disk: RecordedDisk, web: Server) -> None:
    with running(stopped, disk) as daemon:
        with traced(daemon, "trace=fdatasync", "inject=fdatasync:retval=0") as trace:
            clients = work(daemon, disk, web, STEPS_WITHOUT_SYNCS)
        assert trace.failed
    assert any_is_lost(stopped, disk, clients, lambda moment: assert_survived(stopped, clients, moment))


def any_is_lost(
    daemon: RealDaemon, disk: RecordedDisk, clients: list[RecordedClient], check: Callable[[int], object]
) -> bool:
    """Whether a crash loses something at any of the moments when a client has just been answered."""
    chance = random.Random(10)
    replay = disk.replay()
    for moment in sorted(step.answered for client in clients for step in client.steps):
        replay.crash(moment, chance, image := f"{daemon.room}/left")
        with disk.after_crash(image):
            try:
                check(moment)
            except (AssertionError, OSError, ValueError):
                return True
            finally:
                daemon.kill()
    return False


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_of_the_recorded_disk_only_what_was_not_flushed_is_lost(disk: RecordedDisk) -> None:
    sectors, middle = 64, IMAGE_BYTES // 2
    with disk.device() as device, mmap.mmap(-1, sectors * 512) as space:
        descriptor = os.open(device, os.O_RDWR | os.O_DIRECT)
        try:
            space[:] = b"1" * len(space)
            os.pwritev(descriptor, [space], middle)
            os.fsync(descriptor)
            space[:] = b"2" * len(space)
            os.pwritev(descriptor, [space], middle)
            moment = disk.log.now()
        finally:
            os.close(descriptor)
    chance = random.Random(11)
    replay = disk.replay()
    seen = []
    for _ in range(40):
        replay.crash(moment, chance, image := f"{disk.directory}.left")
        with open(image, "rb") as file:
            file.seek(middle)
            left = [file.read(512) for _ in range(sectors)]
        assert set(left) <= {b"1" * 512, b"2" * 512}
        seen.append(b"".join(sector[:1] for sector in left))
    assert b"1" * sectors in seen, "no crash lost all"
    assert any(b"12" in left for left in seen), "no crash kept what was written later, without what was written before"
    assert any(len(set(left[at : at + 8])) > 1 for left in seen for at in range(0, sectors, 8)), "no crash tore a page"
