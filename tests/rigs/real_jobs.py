"""What tests of jobs ask a real daemon for."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from typing import Any

from rigs.real_daemon import RealDaemon, Wire
from rigs.waiting import wait_until

CHUNK = 4 << 20
SIZE = 8 * CHUNK


def sparse(daemon: RealDaemon, name: str, size: int = SIZE, mark: bytes = b"GGUF") -> str:
    """A big file that costs nothing to make; the mark makes its content its own."""
    path = os.path.join(daemon.room, name)
    with open(path, "wb") as file:
        file.truncate(size)
        file.write(mark)
    return path


def add(wire: Wire, path: str, name: str, **fields: Any) -> tuple[str, str]:
    """The request's number, and the job's id once it is accepted."""
    number = wire.request("model.add", path=path, name=name, **fields)
    return number, accepted(wire, number)["job"]


def accepted(wire: Wire, number: str) -> dict[str, Any]:
    reply = wire.until(number, "accepted", "result", "error")
    assert reply["type"] == "accepted", reply
    return reply


def show(daemon: RealDaemon, job: str) -> dict[str, Any]:
    reply = daemon.ask("job.show", job=job)
    assert reply["type"] == "result", reply
    value: dict[str, Any] = reply["value"]
    return value


def running(daemon: RealDaemon, job: str, phase: str = "copy") -> None:
    wait_until(lambda: show(daemon, job).get("progress", {}).get("phase") == phase, what=f"job {job} in {phase}")


def replies_until_end(wire: Wire, number: str) -> list[dict[str, Any]]:
    replies: list[dict[str, Any]] = []
    while not replies or replies[-1]["type"] not in ("result", "error"):
        reply = wire.read()
        if reply.get("id") == number:
            replies.append(reply)
    return replies


def staging(daemon: RealDaemon) -> list[str]:
    return os.listdir(os.path.join(daemon.root, ".modeld", "staging"))


def rows(daemon: RealDaemon) -> list[tuple[str, str]]:
    """The ledger as it is on the disk, read behind the daemon's back."""
    with tempfile.TemporaryDirectory() as copied:
        # The daemon has its database to itself; what it has committed is in these two files.
        for name in ("catalog.sqlite", "catalog.sqlite-wal"):
            shutil.copy(os.path.join(daemon.root, ".modeld", name), copied)
        connection = sqlite3.connect(os.path.join(copied, "catalog.sqlite"))
        try:
            return connection.execute("SELECT id, state FROM jobs ORDER BY id").fetchall()
        finally:
            connection.close()
