"""SIGKILL at any moment, a thousand times under load, and at each system call of a publication.

What must hold after each: who was acknowledged is not forgotten, who was told the end can rely on it, a name stands for
complete and verified bytes or for nothing, nothing is published twice, and nothing is left lying about.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon, Wire
from rigs.real_jobs import staging
from rigs.waiting import wait_until

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

SHORT = os.environ.get("MODELD_TORTURE") == "short"
KILLS = 15 if SHORT else 1000
CLIENTS = 4
SHARED_NAMES = 6
"""Names that all clients write to, each replacing what is there."""

KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""strace ends as its child did."""

STRACE = shutil.which("strace")
EVERY_CALL = (
    "fdatasync",
    "renameat2",
    "rename",
    "fsync",
    "pwrite64",
    "pwritev2",
    "fchmod",
    "unlink",
    "mkdir",
    "openat",
)
CALLS = ("renameat2", "rename") if SHORT else EVERY_CALL
STRIDE = {"openat": 60, "pwrite64": 7}
"""Of those that are many; the others are taken one by one."""


@dataclass
class Ledger:
    """What the clients know for sure. Shared by threads: only appended to, one dict entry at a time."""

    acknowledged: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By job: the name, and the digest that it is to stand for."""
    told_done: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By name, of those that are written once: the manifest's inode and time of change when the end was told."""
    wanted: dict[str, set[str]] = field(default_factory=dict)
    """By name: all digests that it may stand for."""
    faults: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)


class Client(threading.Thread):
    """Adds files as fast as it is let, with whatever daemon there is at the moment."""

    def __init__(self, number: int, daemon: RealDaemon, ledger: Ledger, enough: threading.Event) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self._number = number
        self._daemon = daemon
        self._ledger = ledger
        self._enough = enough
        self._random = random.Random(number)
        self._count = 0

    def run(self) -> None:
        while not self._enough.is_set():
            try:
                with self._daemon.connect() as wire:
                    while not self._enough.is_set():
                        self._add(wire)
            except (EOFError, OSError, TimeoutError):
                self._enough.wait(0.005)
            except Exception as fault:
                self._ledger.faults.append(f"{self.name}: {fault!r}")
                return

    def _add(self, wire: Wire) -> None:
        self._count += 1
        shared = self._random.random() < 0.2
        name = f"shared-{self._random.randrange(SHARED_NAMES)}" if shared else f"own-{self._number}-{self._count}"
        size = (8 << 20) + 1 if self._random.random() < 0.01 else self._random.randrange(1, 60_000)
        if self._random.random() < 0.1:
            content = b"the same for all" * 1000  # found in the store already
        else:
            content = self._random.randbytes(16) + bytes(size)
        path = self._daemon.file(f"source-{self._number}-{self._count}", content)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._ledger.wanted.setdefault(name, set()).add(digest)
        number = wire.request(
            "model.add",
            path=path,
            name=name,
            replace=shared,
            on_disconnect="continue",
            token=f"{name}-{self._number}-{self._count}",
        )
        reply = wire.until(number, "accepted", "error")
        if reply["type"] == "error":
            self._ledger.sent[reply["code"]] += 1
            if reply["code"] != "queue_full":
                self._ledger.faults.append(f"{name}: {reply}")
            return
        self._ledger.acknowledged[reply["job"]] = (name, digest)
        end = wire.terminal(number)
        self._ledger.sent[end["type"]] += 1
        os.unlink(path)
        if end["type"] == "error":
            self._ledger.faults.append(f"{name}: {end}")
        elif not shared:
            self._ledger.told_done[name] = manifest_identity(self._daemon, name)


def manifest_identity(daemon: RealDaemon, name: str) -> tuple[int, int]:
    info = os.stat(os.path.join(daemon.root, "manifests", f"{name}.json"))
    return info.st_ino, info.st_mtime_ns


def digest_of(path: str) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def assert_nothing_was_lost(daemon: RealDaemon, ledger: Ledger) -> None:
    with daemon.connect() as wire:

        def state(job: str) -> Any:
            reply = wire.ask("job.show", job=job)
            assert reply["type"] == "result", f"{job} {ledger.acknowledged[job]}: {reply}"
            return reply["value"]["state"]

        wait_until(partial(all_ended, wire), 120, "the end of all")
        for job in ledger.acknowledged:
            assert state(job) == "done", wire.ask("job.show", job=job)
        for name, digests in ledger.wanted.items():
            reply = wire.ask("model.resolve", name=name)
            acknowledged = {digest for told, digest in ledger.acknowledged.values() if told == name}
            if reply["type"] == "error":
                assert reply["code"] == "not_found"
                assert not acknowledged, f"{name} was acknowledged and is not there"
                continue
            assert digest_of(reply["value"]["path"]) == reply["value"]["blob"], name
            assert reply["value"]["blob"] in digests, name
        for name, identity in ledger.told_done.items():
            assert manifest_identity(daemon, name) == identity, f"{name} was published again"
    ends = Counter(row["job"] for row in daemon.activity() if row["event"] == "job.done")
    assert [job for job, count in ends.items() if count > 1] == []
    assert staging(daemon) == []
    assert_every_manifest_has_its_bytes(daemon)


def all_ended(wire: Wire) -> bool:
    return not any(wire.ask("job.list", state=state, limit=1)["value"]["jobs"] for state in ("queued", "running"))


def assert_every_manifest_has_its_bytes(daemon: RealDaemon) -> None:
    """As any other tool would look, past the daemon."""
    directory = os.path.join(daemon.root, "manifests")
    for name in os.listdir(directory):
        assert name.endswith(".json"), name
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            manifest = json.load(file)
        hexadecimal = manifest["blob"].removeprefix("sha256:")
        blob = os.path.join(daemon.root, "blobs", "sha256", hexadecimal[:2], hexadecimal, "data")
        assert os.stat(blob).st_size == manifest["size_bytes"]


def test_killed_again_and_again_under_load(stopped: RealDaemon) -> None:
    stopped.configure("[limits]\nwaiting_per_peer = 32\n[activity]\nmax_bytes = '1GiB'\n[store]\nmin_free = '0'\n")
    ledger, enough = Ledger(), threading.Event()
    clients = [Client(number, stopped, ledger, enough) for number in range(CLIENTS)]
    starts: list[float] = []
    chance = random.Random(7)
    stopped.start()
    for client in clients:
        client.start()
    try:
        for kill in range(KILLS):
            # Most kills hit the daemon at work, some while it still starts.
            enough.wait(chance.uniform(0.0, 0.3) if chance.random() < 0.9 else 0.0)
            stopped.kill()
            began = time.monotonic()
            word = stopped.spawn()
            starts.append(time.monotonic() - began)
            assert word.startswith("READY"), f"after {kill} kills: {word} {stopped.log()[-2000:]}"
            recovery = stopped.ask("daemon.status")["value"]["recovery"]
            assert recovery["catalog_set_aside"] is None
            assert recovery["models_failed"] == []
            assert ledger.faults == []
    finally:
        enough.set()
        for client in clients:
            client.join(60)
    stopped.kill()
    stopped.start()
    assert ledger.faults == []
    assert len(ledger.acknowledged) > KILLS
    assert_nothing_was_lost(stopped, ledger)
    assert stopped.terminate() == 0
    print(
        f"{KILLS} kills, {len(ledger.acknowledged)} jobs acknowledged, {len(ledger.told_done)} names told done once;"
        f" ready again after {statistics.median(starts):.2f} s, at worst {max(starts):.2f} s"
    )
    assert statistics.median(starts) < 5.0


def test_killed_while_it_starts(stopped: RealDaemon) -> None:
    """With work left over from the life before, so that the start has something to do."""
    chance = random.Random(11)
    stopped.start()
    jobs_left = []
    with stopped.connect() as wire:
        for index in range(8):
            path = stopped.file(f"s{index}", os.urandom(3 << 20))
            number = wire.request("model.add", path=path, name=f"m{index}", on_disconnect="continue")
            jobs_left.append(wire.until(number, "accepted")["job"])
    stopped.kill()
    for _ in range(5 if SHORT else 60):
        reader, writer = os.pipe()
        os.close(reader)
        thread = threading.Timer(chance.uniform(0.05, 0.4), stopped.kill)
        os.close(writer)
        thread.start()
        stopped.spawn()
        thread.join()
    stopped.kill()
    stopped.start()
    wait_until(lambda: all(stopped.ask("job.show", job=job)["value"]["state"] == "done" for job in jobs_left))
    assert staging(stopped) == []
    assert_every_manifest_has_its_bytes(stopped)


def nth_calls(call: str) -> Iterator[int]:
    """1, 2, 3, …: until the caller sees that nothing was hit any more."""
    number = 1
    while number < 2000:
        yield number
        number += STRIDE.get(call, 1)


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_each_system_call(stopped: RealDaemon, call: str) -> None:
    """One name is replaced, another one given; the kill comes at the n-th such call of any thread."""
    stopped.start()
    first = os.urandom(9000)
    assert stopped.ask("model.add", path=stopped.file("first", first), name="kept")["type"] == "result"
    assert stopped.terminate() == 0
    hits = 0
    for number in nth_calls(call):
        contents = {"kept": os.urandom(7000), f"new-{number}": os.urandom((5 << 20) + number)}
        before = digest_now(stopped, "kept")
        acknowledged, alive = _run_with_kill(stopped, call, number, contents)
        hits += not alive
        stopped.start()
        # Also what was accepted by a daemon that could not say so any more.
        with stopped.connect() as wire:
            wait_until(partial(all_ended, wire), what=f"the end of all jobs after {call} {number}")
            for job in acknowledged.values():
                assert wire.ask("job.show", job=job)["value"]["state"] == "done", (call, number)
        kept = digest_now(stopped, "kept")
        allowed = {f"sha256:{hashlib.sha256(contents['kept']).hexdigest()}"}
        assert kept in (allowed if "kept" in acknowledged else allowed | {before}), (call, number)
        new = stopped.ask("model.resolve", name=f"new-{number}")
        if f"new-{number}" in acknowledged:
            assert digest_of(new["value"]["path"]) == new["value"]["blob"], (call, number)
        assert staging(stopped) == []
        ends = Counter(row["job"] for row in stopped.activity() if row["event"] == "job.done")
        assert max(ends.values()) == 1, (call, number)
        assert_every_manifest_has_its_bytes(stopped)
        assert stopped.terminate() == 0
        if alive:
            break
    else:
        pytest.fail(f"{call} has no end")
    print(f"{call}: killed {hits} times")
    assert hits


def digest_now(daemon: RealDaemon, name: str) -> str:
    with open(os.path.join(daemon.root, "manifests", f"{name}.json"), encoding="utf-8") as file:
        blob = str(json.load(file)["blob"])
    hexadecimal = blob.removeprefix("sha256:")
    assert digest_of(os.path.join(daemon.root, "blobs", "sha256", hexadecimal[:2], hexadecimal, "data")) == blob
    return blob


def _run_with_kill(
    daemon: RealDaemon, call: str, number: int, contents: dict[str, bytes]
) -> tuple[dict[str, str], bool]:
    """The jobs that were acknowledged, by name, and whether the daemon lived through all of it."""
    inject = f"inject={call}:signal=KILL:when={number}"
    prefix = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
    acknowledged: dict[str, str] = {}
    if not daemon.spawn(prefix=prefix).startswith("READY"):
        assert daemon.wait() in KILLED, daemon.log()
        return acknowledged, False
    try:
        with daemon.connect() as wire:
            sent = {
                wire.request(
                    "model.add",
                    path=daemon.file(name, content),
                    name=name,
                    replace=name == "kept",
                    on_disconnect="continue",
                ): name
                for name, content in contents.items()
            }
            while sent:
                # Jobs end in any order.
                reply = wire.read()
                assert reply["type"] != "error", reply
                if reply["type"] == "accepted":
                    acknowledged[sent[reply["id"]]] = reply["job"]
                elif reply["type"] == "result":
                    del sent[reply["id"]]
            wire.ask("daemon.drain")
            assert wire.closed()
    except (EOFError, ConnectionError, FileNotFoundError):
        pass
    exit_code = daemon.wait()
    assert exit_code == 0 or exit_code in KILLED, exit_code
    return acknowledged, exit_code == 0
