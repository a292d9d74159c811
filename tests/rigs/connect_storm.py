"""Users who connect and leave as fast as they can, each a process of its own; and what that costs somebody else."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from modelclient.platform.posix import connect
from rigs.real_daemon import RealDaemon, Wire
from rigs.rough_peers import Latencies

# It changes its user itself: the interpreter may lie where the other user may not go.
_STORM = """
import os, socket, sys
path, uid, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
held = []
print(flush=True)
while True:
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.connect(path)
    except OSError:
        pass
    if how == "hold":
        held.append(peer)
        if len(held) < 100:
            continue
        peer = held.pop(0)
    peer.close()
"""


Storming = Literal["leave", "hold"]


@contextlib.contextmanager
def storm(daemon: RealDaemon, uids: Sequence[int], how: Storming) -> Iterator[None]:
    """Each user connects without end, and leaves at once, or holds a hundred connections."""
    peers = [
        subprocess.Popen(
            [sys.executable, "-IS", "-c", _STORM, daemon.socket, str(uid), how],
            stdout=subprocess.PIPE,
        )
        for uid in uids
    ]
    try:
        for peer in peers:
            assert peer.stdout is not None
            peer.stdout.readline()
        yield
    finally:
        for peer in peers:
            peer.kill()
            peer.communicate()


@dataclass
class Asked:
    """What `daemon.status` takes somebody else, in milliseconds."""

    anew: Latencies = field(default_factory=Latencies)
    """With a connection for each, its hello included."""

    connected: Latencies = field(default_factory=Latencies)
    """Over one connection."""


def ask_meanwhile(daemon: RealDaemon, times: int) -> Asked:
    asked = Asked()
    with _connected(daemon) as standing:
        assert standing.read()["type"] == "hello"
        for _ in range(times):
            before = time.perf_counter()
            with _connected(daemon) as wire:
                assert wire.read()["type"] == "hello"
                assert wire.ask("daemon.status")["type"] == "result"
            between = time.perf_counter()
            assert standing.ask("daemon.status")["type"] == "result"
            asked.anew.values.append((between - before) * 1000)
            asked.connected.values.append((time.perf_counter() - between) * 1000)
    return asked


def _connected(daemon: RealDaemon) -> Wire:
    """As clients connect: a socket with a timeout of Python's fails instead of waiting while the queue is full."""
    return Wire.over(socket.socket(fileno=connect(daemon.socket).detach()))


def log_bytes(daemon: RealDaemon) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(daemon.state) if entry.name.startswith("activity"))
