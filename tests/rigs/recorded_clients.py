"""Clients that change a store on a recorded disk, and know what must be there after a crash at any of its moments."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rigs.real_daemon import RealDaemon
from rigs.recorded_disk import RecordedDisk
from rigs.scripted_server import Server, sha256

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


def served(path: str) -> bytes:
    """What the web server of the clients has at a path."""
    return random.Random(path).randbytes(200_000)


class RecordedClient(threading.Thread):
    """Changes its own names, one change after the other, and writes down when it learned of what."""

    def __init__(
        self, number: int, steps: int, daemon: RealDaemon, disk: RecordedDisk, web: Server, enough: threading.Event
    ) -> None:
        super().__init__(name=f"client {number}")
        self.prefix = f"c{number}-"
        self.steps: list[Step] = []
        self.fault: BaseException | None = None
        self._number_of_steps = steps
        self._daemon, self._disk, self._web, self._enough = daemon, disk, web, enough
        self._chance = random.Random(number)
        self._inbox = Path(disk.directory, "inbox")
        self._state: State = {}

    def run(self) -> None:
        try:
            for number in range(self._number_of_steps):
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
        digest = sha256(served(f"/{name}.bin"))
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
        assert own in allowed, (moment, since, own, last)
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
