"""Peers as a daemon meets them: another user, one that never reads, one that measures, one that is in the way.

What the end-to-end tests share beside `real_daemon`. Nothing here sleeps for a fixed time to make something happen.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon, Wire
from rigs.waiting import wait_until

SHORT = os.environ.get("MODELD_TORTURE") == "short"

MIB = 1 << 20

FOREIGN_UID = 54_321
"""A user without an account: what is granted to it is granted by its number alone."""

ALLOW_ROOT = "[daemon]\nallow_root = true\n"
"""For the configuration of a daemon that root runs for several users, as the tests do."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as another user")


def scaled(full: int, short: int) -> int:
    """How much of a long run is asked for: `MODELD_TORTURE=short` makes it brief."""
    return short if SHORT else full


# It changes its user itself: the interpreter may lie where the other user may not go.
_CONNECT = """
import os, socket, sys
path, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
peer = socket.socket(socket.AF_UNIX)
try:
    peer.connect(path)
except PermissionError:
    sys.exit(13)
with socket.socket(fileno=0) as back:
    socket.send_fds(back, [b"x"], [peer.fileno()])
"""


def connect_as(path: str, uid: int, gid: int | None = None) -> Wire:
    """A connection that another user has made. The kernel remembers who connected, whoever uses the socket later."""
    here, there = socket.socketpair()
    with here, there:
        child = subprocess.Popen(
            [sys.executable, "-IS", "-c", _CONNECT, path, str(uid), str(uid if gid is None else gid)],
            stdin=there.fileno(),
        )
        there.close()
        here.settimeout(20)
        _, descriptors, _, _ = socket.recv_fds(here, 1, 1)
        ended = child.wait(20)
    if ended == errno.EACCES:
        raise PermissionError(ended, "the other user may not connect", path)
    assert ended == 0
    return Wire.over(socket.socket(fileno=descriptors[0]))


def stranger(daemon: RealDaemon, uid: int = FOREIGN_UID) -> Wire:
    """A connection of another user, who has been let in."""
    wire = connect_as(daemon.socket, uid)
    assert wire.read()["type"] == "hello"
    return wire


@contextlib.contextmanager
def held_name(daemon: RealDaemon, name: str) -> Iterator[None]:
    """Another tool holds the lock of this name: a job that is to publish it runs until the tool lets go."""
    path = os.path.join(daemon.root, "locks", f"{name}.lock")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def staging(daemon: RealDaemon) -> list[str]:
    """What lies in the staging directory now."""
    with contextlib.suppress(FileNotFoundError):
        return os.listdir(os.path.join(daemon.root, ".modeld", "staging"))
    return []


def incidents(daemon: RealDaemon) -> list[str]:
    """Lines of the daemon's log about what nobody foresaw."""
    suspicious = ("incident", "Traceback", "unhandled", "Task exception", "never retrieved")
    return [line for line in daemon.log().splitlines() if any(word in line for word in suspicious)]


def status(daemon: RealDaemon) -> dict[str, Any]:
    value: dict[str, Any] = daemon.ask("daemon.status")["value"]
    return value


def job(daemon: RealDaemon, number: str) -> dict[str, Any]:
    value: dict[str, Any] = daemon.ask("job.show", job=number)["value"]
    return value


def until_job(daemon: RealDaemon, number: str, state: str, seconds: float = 20.0) -> None:
    with daemon.connect() as wire:
        wait_until(
            lambda: wire.ask("job.show", job=number)["value"]["state"] == state, seconds, f"job {number} is {state}"
        )


def exchange(wire: Wire, lines: list[bytes]) -> list[dict[str, Any]]:
    """Sends everything in one go and reads one reply for each line."""
    wire.send(b"".join(line + b"\n" for line in lines))
    return [wire.read() for _ in lines]


def line(op: str, number: str, **fields: Any) -> bytes:
    return json.dumps({"id": number, "op": op, **fields}).encode()


def everything_until_close(wire: Wire) -> list[dict[str, Any]]:
    """All replies up to the end of the connection, which must come."""
    replies = []
    try:
        while True:
            replies.append(wire.read())
    except EOFError:
        return replies


def send_unwelcome(wire: Wire, data: bytes) -> None:
    """Sends what may end the connection before all of it has been taken."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        wire.send(data)


def sparse(daemon: RealDaemon, name: str, size: int) -> str:
    """A file that takes a while to read and no room on the disk."""
    path = os.path.join(daemon.room, name)
    with open(path, "wb") as file:
        file.truncate(size)
    return path


@dataclass
class Latencies:
    """Round trips in milliseconds."""

    values: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def p99(self) -> float:
        return self.percentile(0.99)

    def __str__(self) -> str:
        median = statistics.median(self.values)
        return f"n={len(self.values)} median={median:.2f} p99={self.p99:.2f} max={max(self.values):.2f} ms"


@contextlib.contextmanager
def measuring(
    daemon: RealDaemon, op: str = "daemon.status", pause: float = 0.002, **fields: Any
) -> Iterator[Latencies]:
    """Somebody else's round trips, for as long as the block runs."""
    latencies = Latencies()
    done = threading.Event()
    faults: list[BaseException] = []

    def ask() -> None:
        try:
            with daemon.connect() as wire:
                while not done.is_set() or len(latencies.values) < 100:
                    before = time.perf_counter()
                    assert wire.ask(op, **fields)["type"] == "result"
                    latencies.values.append((time.perf_counter() - before) * 1000)
                    done.wait(pause)
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield latencies
    finally:
        done.set()
        thread.join(60)
    assert not faults, faults


def write_access(daemon: RealDaemon, users: Mapping[str, str]) -> None:
    table = ", ".join(f'"{name}" = "{role}"' for name, role in users.items())
    daemon.configure(f"{ALLOW_ROOT}[access]\nusers = {{ {table} }}\n")


def many_models(daemon: RealDaemon, count: int, prefix: str = "m") -> None:
    """Manifests as another tool would write them: all of one blob."""
    daemon.ask("model.add", path=daemon.file("one.bin", b"one"), name=f"{prefix}0")
    manifests = os.path.join(daemon.root, "manifests")
    with open(os.path.join(manifests, f"{prefix}0.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    for number in range(1, count):
        manifest["name"] = f"{prefix}{number}"
        with open(os.path.join(manifests, f"{prefix}{number}.json"), "w", encoding="utf-8") as file:
            json.dump(manifest, file)
