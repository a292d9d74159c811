"""The power goes: a store on a filesystem of its own that is cut off without its journal, and mounted again.

What was answered is there and whole; what was not is whole or absent; what was accepted is finished by the next start.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from end_to_end.test_names_killed import VERBS, WITHOUT, Verb, all_ended, ask, whole_names
from rigs.filesystems import FILESYSTEMS, run
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import scaled, staging
from rigs.traced_daemon import killed_at, strace
from rigs.waiting import wait_until

__all__ = ["strace"]

pytestmark = [pytest.mark.torture, pytest.mark.timeout(1800)]

SHUTDOWN = 0x8004587D
"""_IOR('X', 125, __u32), of ext4 and XFS."""
NO_LOG_FLUSH = 2
"""What the journal has not written out yet is lost, as with the power."""

IMAGE_BYTES = 256 << 20
EXT4 = FILESYSTEMS["ext4"]

CALLS = ("renameat2", "fsync", "fdatasync", "unlink", "fchmod", "mkdir", "pwrite64", "pwritev2")
SWEPT = [
    (name, call)
    for name in ("add", *VERBS)
    for call in (CALLS if scaled(1, 0) else CALLS[:2])
    if (name, call) not in WITHOUT
]
LONGEST = 40
CUTS = scaled(60, 4)
WRITERS = 4


class Machine:
    """A daemon with its store on a disk that loses power."""

    def __init__(self, daemon: RealDaemon) -> None:
        self.daemon = daemon
        self._image, self._disk = f"{daemon.room}/image", f"{daemon.room}/disk"
        self._cuts = 0
        os.mkdir(self._disk)
        EXT4.make(self._image, IMAGE_BYTES)
        self.mount()
        daemon.root = daemon.environ["MODELS_HOME"] = f"{self._disk}/models"
        daemon.environ["MODELD_STORE_MIN_FREE"] = "0"

    def mount(self) -> None:
        EXT4.mount(self._image, self._disk)

    def unmount(self) -> None:
        run("umount", self._disk)

    def cut(self) -> None:
        """From this moment on nothing reaches the disk any more."""
        descriptor = os.open(self._disk, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)
        self.daemon.kill()
        self.unmount()
        # A process with mounts of its own may keep the dead filesystem: a mount of the same file would find it again.
        self._cuts += 1
        before, self._image = self._image, f"{self.daemon.room}/image{self._cuts}"
        run("cp", "--sparse=always", before, self._image)
        os.unlink(before)
        self.mount()


@pytest.fixture
def machine(stopped: RealDaemon) -> Iterator[Machine]:
    reason = EXT4.missing(stopped.room)
    if reason is not None:
        pytest.skip(reason)
    made = Machine(stopped)
    yield made
    stopped.close()
    made.unmount()


def add(daemon: RealDaemon, name: str, content: bytes, **fields: Any) -> None:
    reply = daemon.ask("model.add", path=daemon.file("source", content), name=name, **fields)
    assert reply["type"] == "result", reply


def directory_of(daemon: RealDaemon, name: str) -> str:
    path = f"{daemon.room}/{name}"
    os.mkdir(path)
    for number in range(12):
        daemon.file(f"{name}/{number}.bin", os.urandom(3000))
    return path


Change = Callable[[RealDaemon, str], tuple[str, dict[str, Any], list[str]]]

ANSWERED: dict[str, Change] = {
    "add": lambda d, n: ("model.add", {"path": d.file("new", os.urandom(5000)), "name": f"b{n}"}, [f"a{n}", f"b{n}"]),
    "add big": lambda d, n: (
        "model.add",
        {"path": d.file("new", os.urandom((9 << 20) + 1)), "name": f"b{n}"},
        [f"a{n}", f"b{n}"],
    ),
    "add many": lambda d, n: ("model.add", {"path": directory_of(d, f"d{n}"), "name": f"b{n}"}, [f"a{n}", f"b{n}"]),
    "replace": lambda d, n: (
        "model.add",
        {"path": d.file("new", os.urandom(5000)), "name": f"a{n}", "replace": True},
        [f"a{n}"],
    ),
    "cp": lambda _, n: ("model.copy", {"source": f"a{n}", "destination": f"b{n}"}, [f"a{n}", f"b{n}"]),
    "mv": lambda _, n: ("model.move", {"source": f"a{n}", "destination": f"b{n}"}, [f"b{n}"]),
    "rm": lambda _, n: ("model.remove", {"name": f"a{n}"}, []),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_what_was_answered_is_there_after_the_power_went(machine: Machine, name: str) -> None:
    daemon = machine.daemon.start()
    expected: list[str] = []
    for number in range(scaled(8, 2)):
        add(daemon, f"a{number}", os.urandom(4000))
        op, fields, after = ANSWERED[name](daemon, str(number))
        with daemon.connect() as wire:
            reply = wire.ask(op, **fields)
            machine.cut()
        assert reply["type"] == "result", reply
        expected = sorted([*expected, *after])
        assert whole_names(daemon) == expected
        daemon.start()
        for model in expected:
            resolved = daemon.ask("model.resolve", name=model)
            assert resolved["value"]["state"] == "ready", resolved
        if name == "replace":
            assert daemon.ask("model.resolve", name=f"a{number}")["value"]["blob"] == reply["value"]["blob"]
        assert not expected or daemon.ask("model.verify", names=expected)["value"]["ok"] is True
        assert staging(daemon) == []


ADD = Verb(
    "model.add",
    lambda _here, there: {"name": there},
    lambda here, there: sorted([here, there]),
    lambda here, there: [[here], sorted([here, there])],
)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(("name", "call"), SWEPT)
def test_the_power_goes_at_each_system_call(machine: Machine, name: str, call: str) -> None:
    daemon, verb = machine.daemon.start(), VERBS.get(name, ADD)
    cuts = 0
    for nth in range(1, LONGEST):
        here, there = f"a{nth}", f"b{nth}"
        add(daemon, here, os.urandom(4000))
        fields = verb.fields(here, there)
        if verb is ADD:
            fields = fields | {"path": daemon.file("new", os.urandom(5000)), "on_disconnect": "continue"}
        with killed_at(daemon, call, nth) as trace:
            accepted, answered = ask(daemon, verb.op, fields)
        cuts += trace.killed
        machine.cut()
        names = whole_names(daemon)
        assert names in verb.between(here, there), (nth, names)
        assert names == verb.after(here, there) or not answered, (nth, names)
        daemon.start()
        wait_until(lambda: all_ended(daemon), what="the end of all jobs")
        names = whole_names(daemon)
        assert names == verb.after(here, there) or (not accepted and names in verb.between(here, there)), (nth, names)
        assert staging(daemon) == []
        for model in names:
            assert daemon.ask("model.resolve", name=model)["value"]["state"] == "ready"
            assert daemon.ask("model.remove", name=model)["type"] == "result"
        if not trace.killed:
            print(f"{name}, {call}: the power went {cuts} times")
            return
    pytest.fail("the sweep has no end")


def test_the_power_goes_under_load(machine: Machine) -> None:
    daemon = machine.daemon
    chance = random.Random(5)
    answered: set[str] = set()
    for cut in range(CUTS):
        daemon.start()
        stop = threading.Event()
        writers = [
            threading.Thread(target=write, args=(daemon, f"{cut}-{number}", stop, answered))
            for number in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        stop.wait(chance.uniform(0.05, 0.6))
        machine.cut()
        stop.set()
        for writer in writers:
            writer.join(30)
            assert not writer.is_alive()
        assert answered <= set(whole_names(daemon)), answered - set(whole_names(daemon))
        daemon.start()
        wait_until(lambda: all_ended(daemon), what="the end of all jobs")
        assert staging(daemon) == []
        if cut % 10 == 9:
            # Room for the next: the disk is small.
            for model in whole_names(daemon):
                assert daemon.ask("model.remove", name=model)["type"] == "result"
            answered.clear()
        assert daemon.terminate() == 0
    print(f"the power went {CUTS} times under load")


def write(daemon: RealDaemon, prefix: str, stop: threading.Event, answered: set[str]) -> None:
    """What was answered with success is written down; a set takes one entry at a time."""
    count = 0
    try:
        with daemon.connect() as wire:
            while not stop.is_set():
                count += 1
                name = f"{prefix}-{count}"
                content = os.urandom(random.choice((500, 5000, 60_000)))
                reply = wire.ask("model.add", path=daemon.file(f"source-{prefix}", content), name=name)
                if reply["type"] == "result":
                    answered.add(name)
    except (EOFError, OSError):
        return
