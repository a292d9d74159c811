"""Helpers for tests of pulls: bytes of a web server, files that look like models, the command beside a daemon."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from rigs.command import COMMAND
from rigs.real_daemon import RealDaemon, Wire
from rigs.real_nginx import Nginx
from rigs.waiting import wait_until

MIB = 1 << 20


def gguf(size: int, seed: int = 1) -> bytes:
    """Bytes that begin like a model; different seeds make different bytes."""
    return b"GGUF\3\0\0\0" + random.Random(seed).randbytes(size - 8)


def hex_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(web: Nginx, name: str, content: bytes) -> str:
    """Returns the address of the file."""
    (web.files / name).write_bytes(content)
    return f"{web.plain}/{name}"


def sent(web: Nginx) -> int:
    """Bytes of bodies that the server has sent, also for requests that were broken off."""
    return sum(int(line.split()[1]) for line in web.requests() if line.startswith("2"))


def pull(daemon: RealDaemon, ref: str, **fields: Any) -> dict[str, Any]:
    return daemon.ask("model.pull", ref=ref, **fields)


def pulled(daemon: RealDaemon, ref: str, **fields: Any) -> dict[str, Any]:
    reply = pull(daemon, ref, **fields)
    assert reply["type"] == "result", f"{reply}\n{daemon.log()}"
    value: dict[str, Any] = reply["value"]
    return value


def failed(daemon: RealDaemon, ref: str, code: str, **fields: Any) -> dict[str, Any]:
    reply = pull(daemon, ref, **fields)
    assert reply["type"] == "error", reply
    assert reply["code"] == code, reply
    assert reply["message"]
    assert reply["hint"]
    return reply


def begun(wire: Wire, number: str, at_least: int) -> str:
    """Waits until the pull has at least that many bytes, and returns its job."""
    while True:
        reply = wire.read()
        assert reply["type"] not in ("result", "error") or reply["id"] != number, reply
        if reply["type"] == "progress" and reply["id"] == number and reply["bytes_done"] >= at_least:
            job: str = reply["job"]
            return job


def ctl(daemon: RealDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=daemon.environ,
        cwd=daemon.room,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def job_state(daemon: RealDaemon, job: str, *states: str) -> dict[str, Any]:
    """Waits until the job is in one of these states, and returns it."""
    seen: dict[str, Any] = {}

    def there() -> bool:
        seen.update(daemon.ask("job.show", job=job)["value"])
        return seen["state"] in states

    wait_until(there, 60, f"one of {states} for {job}")
    return seen


def partials(daemon: RealDaemon) -> list[str]:
    found = [str(path) for path in Path(daemon.root).glob("blobs/sha256/*/.partial-*")]
    keyed = Path(daemon.root, ".modeld", "partials")
    return found + ([str(path) for path in keyed.iterdir()] if keyed.is_dir() else [])


def downloads_open(daemon: RealDaemon) -> list[str]:
    """Open partials: a cancelled pull answers at once, and closes its connections and files a moment later."""
    folder = f"/proc/{daemon.pid}/fd"
    found = []
    for number in os.listdir(folder):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"{folder}/{number}"))
    return [path for path in found if path.endswith("/data.tmp")]


def make_old(paths: list[str]) -> None:
    """As if these downloads had not continued for years."""
    for path in paths:
        for inside in (*Path(path).iterdir(), Path(path)):
            os.utime(inside, (1, 1))


def manifest(daemon: RealDaemon, name: str) -> dict[str, Any]:
    with open(os.path.join(daemon.root, "manifests", f"{name}.json"), encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
        return document


def everything_kept(room: str) -> bytes:
    """All that the daemon wrote except the bytes of models: log, catalogue, manifests, events."""
    kept = b""
    for path in sorted(Path(room).rglob("*")):
        if (
            path.is_file()
            and not path.is_symlink()
            and path.name not in ("data", "data.tmp")
            and "trees" not in path.parts
        ):
            kept += path.read_bytes()
    return kept
