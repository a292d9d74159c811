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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from end_to_end.test_names_killed import whole_models
from rigs.block_log import Replay
from rigs.filesystems import FILESYSTEMS
from rigs.real_daemon import RealDaemon
from rigs.recorded_disk import IMAGE_BYTES, RecordedDisk
from rigs.rough_peers import incidents, scaled, staging, status
from rigs.scripted_server import Server, file_reply, serving, sha256
from rigs.traced_daemon import strace, traced
from rigs.waiting import wait_until

__all__ = ["strace"]

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

CRASHES = scaled(110, 4)
"""Of each filesystem."""
SEARCHED = 40
"""Crashes among which a loss must be, where the daemon does not sync."""
CLIENTS = 4
STEPS = scaled(60, 10)
"""Of each client."""
KILLS = scaled(8, 1)
"""Of the daemon alone while they work: the disk sees what a start writes."""
JOBS = 1000
"""As many as a list gives, and more than there are."""
SIZES = (700, 5000, 5000, 60_000, 600_000)
BIG = (9 << 20) + 1
"""More than is synced together with others."""

State = dict[str, tuple[str, ...]]
"""Models by their names, with the digests of their files in order."""

Since = Literal["crashed", "started", "asked again"]
"""What has happened to the store after the crash."""


@dataclass
class Step:
    """What a client asked for, and how many requests the disk had seen when it asked, was accepted and was answered."""

    op: str
    fields: dict[str, Any]
    outcomes: list[State]
    """What the client's names may be while this is in flight: first what they were, last what they are to be."""
    source: tuple[Path, str] | None = None
    """A file on the same disk, synced before, and its digest."""
    job: str = ""
    began: int = 0
    accepted: int = 0
    answered: int = 0


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
    """Serves bytes that follow from the path."""
    with serving(lambda asked: file_reply(asked, random.Random(asked.path).randbytes(200_000))) as server:
        yield server


class Client(threading.Thread):
    """Changes its own names, one change after the other, and writes down when it learned of what."""

    def __init__(
        self, number: int, daemon: RealDaemon, disk: RecordedDisk, web: Server, enough: threading.Event
    ) -> None:
        super().__init__(name=f"client {number}")
        self.prefix = f"c{number}-"
        self.steps: list[Step] = []
        self.fault: BaseException | None = None
        self._daemon, self._disk, self._web, self._enough = daemon, disk, web, enough
        self._chance = random.Random(number)
        self._inbox = Path(disk.directory, "inbox")
        self._state: State = {}

    def run(self) -> None:
        try:
            for number in range(STEPS):
                step = self._next()
                step.fields |= {"token": f"{self.prefix}{number}", "on_disconnect": "continue"}
                step.began = self._disk.log.now()
                self.steps.append(step)
                while not self._done(step):
                    if self._enough.wait(0.01):
                        return
                self._state = step.outcomes[-1]
        except BaseException as fault:
            self.fault = fault

    def _done(self, step: Step) -> bool:
        """False when there is no daemon, or it dies before it answers: the token asks the next one for the same job."""
        try:
            with self._daemon.connect() as wire:
                number = wire.request(step.op, **step.fields)
                reply = wire.until(number, "accepted", "result", "error")
                if reply["type"] == "accepted":
                    assert step.job in ("", reply["job"])
                    step.job = reply["job"]
                    step.accepted = step.accepted or self._disk.log.now()
                    reply = wire.terminal(number)
        except (EOFError, OSError):
            return False
        step.answered = self._disk.log.now()
        step.accepted = step.accepted or step.answered
        assert reply["type"] == "result", (step, reply)
        return True

    def ask_again(self, moment: int) -> None:
        """For what was not answered at this moment, as a client does that waited while the machine was away."""
        for step in self.steps:
            if step.began < moment < step.answered:
                reply = self._daemon.ask(step.op, **step.fields)
                assert reply["type"] == "result", (moment, step, reply)

    def _next(self) -> Step:
        new = f"{self.prefix}{len(self.steps)}"
        adds = (self._add, self._add, self._add_from_here, self._add_directory, self._pull)
        if not self._state or self._chance.random() < 0.4:
            return self._chance.choice(adds)(new)
        old = self._chance.choice(sorted(self._state))
        was, without = self._state, {name: files for name, files in self._state.items() if name != old}
        renamed = without | {new: was[old]}
        changes: list[Callable[[], Step]] = [
            lambda: self._add(old, replace=True),
            lambda: self._step("model.copy", {"source": old, "destination": new}, was | renamed),
            lambda: self._step("model.move", {"source": old, "destination": new}, was | renamed, renamed),
            lambda: self._step("model.remove", {"name": old, "now": self._chance.random() < 0.5}, without),
            lambda: self._step("store.sweep", {"grace_s": 0}, was),
        ]
        return self._chance.choice(changes)()

    def _step(self, op: str, fields: dict[str, Any], *then: State) -> Step:
        return Step(op, fields, [self._state, *then])

    def _content(self) -> bytes:
        if self._chance.random() < 0.2:
            return b"the same for all" * self._chance.choice((100, 5000))
        return self._chance.randbytes(BIG if self._chance.random() < 0.03 else self._chance.choice(SIZES))

    def _add(self, name: str, **fields: Any) -> Step:
        content = self._content()
        path = self._daemon.file(f"source-{self.prefix}{len(self.steps)}", content)
        return self._step("model.add", {"path": path, "name": name, **fields}, self._state | {name: (sha256(content),)})

    def _add_from_here(self, name: str) -> Step:
        content, path = self._content(), self._inbox / f"source-{name}"
        with path.open("xb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        sync_directory(self._inbox)
        how = self._chance.choice(({}, {"move": True}, {"link": True}))
        step = self._step(
            "model.add", {"path": str(path), "name": name, **how}, self._state | {name: (sha256(content),)}
        )
        step.source = (path, sha256(content))
        return step

    def _add_directory(self, name: str) -> Step:
        directory = Path(self._daemon.room, f"source-{name}")
        directory.mkdir()
        shards = self._chance.random() < 0.5
        digests = []
        for number in range(1, 13):
            content = self._chance.randbytes(3000)
            file = directory / (f"m-{number:05d}-of-00012.safetensors" if shards else f"{number}.bin")
            file.write_bytes(content)
            digests.append(sha256(content))
        return self._step(
            "model.add", {"path": str(directory), "name": name}, self._state | {name: tuple(sorted(digests))}
        )

    def _pull(self, name: str) -> Step:
        digest = sha256(random.Random(f"/{name}.bin").randbytes(200_000))
        return self._step(
            "model.pull", {"ref": f"{self._web.url}/{name}.bin", "name": name}, self._state | {name: (digest,)}
        )

    def assert_nothing_is_lost(self, models: State, moment: int, since: Since) -> None:
        own = {name: files for name, files in models.items() if name.startswith(self.prefix)}
        begun = [step for step in self.steps if step.began < moment]
        if not begun:
            assert own == {}
            return
        last = begun[-1]
        allowed = last.outcomes
        if last.answered <= moment or since == "asked again" or (since == "started" and last.accepted <= moment):
            allowed = allowed[-1:]
        elif since == "started":
            allowed = [allowed[0], allowed[-1]]
        assert own in allowed, (moment, last)
        for step in begun:
            moved = step.fields.get("move", False)
            if step.source is not None and not (moved and (step is not last or own == last.outcomes[-1])):
                assert sha256(step.source[0].read_bytes()) == step.source[1], (moment, step)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def work(daemon: RealDaemon, disk: RecordedDisk, web: Server, kills: int = 0) -> list[Client]:
    enough = threading.Event()
    clients = [Client(number, daemon, disk, web, enough) for number in range(CLIENTS)]
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


def moments_of(replay: Replay, clients: list[Client], first: int, chance: random.Random, count: int) -> list[int]:
    """Every third when a client has just been answered, the others amid writes that may be lost."""
    answers = [step.answered for client in clients for step in client.steps]
    amid = replay.moments(chance, count - count // 3, first, max(answers))
    return sorted(amid + chance.choices(answers, k=count // 3))


def test_what_was_answered_survives_every_crash_of_the_disk(
    stopped: RealDaemon, disk: RecordedDisk, web: Server
) -> None:
    with running(stopped, disk) as daemon:
        first = disk.log.now()
        clients = work(daemon, disk, web, KILLS)
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


def assert_survived(daemon: RealDaemon, clients: list[Client], moment: int) -> None:
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


def assert_nothing_is_lost(daemon: RealDaemon, clients: list[Client], moment: int, since: Since) -> State:
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
        first = disk.log.now()
        with traced(daemon, *inject, path=path and os.path.join(daemon.root, path)) as trace:
            clients = work(daemon, disk, web)
        assert trace.failed
    assert any_is_lost(
        stopped, disk, clients, first, lambda moment: assert_nothing_is_lost(stopped, clients, moment, "crashed")
    )


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_a_ledger_without_its_syncs_is_found_out(stopped: RealDaemon, disk: RecordedDisk, web: Server) -> None:
    with running(stopped, disk) as daemon:
        first = disk.log.now()
        with traced(daemon, "trace=fdatasync", "inject=fdatasync:retval=0") as trace:
            clients = work(daemon, disk, web)
        assert trace.failed
    assert any_is_lost(stopped, disk, clients, first, lambda moment: assert_survived(stopped, clients, moment))


def any_is_lost(
    daemon: RealDaemon, disk: RecordedDisk, clients: list[Client], first: int, check: Callable[[int], object]
) -> bool:
    chance = random.Random(10)
    replay = disk.replay()
    for moment in moments_of(replay, clients, first, chance, SEARCHED):
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
