"""A daemon that is killed at each system call of a copy, a move or a removal: whatever is there is whole, a move leaves
at least one of the names, and what was accepted is finished by the next start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon
from rigs.real_jobs import staging
from rigs.traced_daemon import killed_at, strace
from rigs.waiting import wait_until

__all__ = ["strace"]

pytestmark = pytest.mark.usefixtures("strace")

CALLS = ("renameat2", "unlink", "fsync", "fdatasync", "ftruncate", "fchmod", "pwrite64", "pwritev2")
CONTENT = b"GGUF weights"
LONGEST = 30


@dataclass(frozen=True)
class Verb:
    op: str
    fields: Callable[[str, str], dict[str, Any]]
    after: Callable[[str, str], list[str]]
    """Of the names `here`, which is there at first, and `there`."""
    between: Callable[[str, str], list[list[str]]]


VERBS = {
    "cp": Verb(
        "model.copy",
        lambda here, there: {"source": here, "destination": there},
        lambda here, there: sorted([here, there]),
        lambda here, there: [[here], sorted([here, there])],
    ),
    "mv": Verb(
        "model.move",
        lambda here, there: {"source": here, "destination": there},
        lambda _here, there: [there],
        lambda here, there: [[here], [there], sorted([here, there])],
    ),
    "rm": Verb("model.remove", lambda here, _there: {"name": here}, lambda *_: [], lambda here, _there: [[here], []]),
}
WITHOUT = {("cp", "unlink"), *(("rm", call) for call in ("renameat2", "fchmod", "pwritev2"))}
"""What the verb has no need of."""
SWEPT = [(name, call) for name in VERBS for call in CALLS if (name, call) not in WITHOUT]


def whole_models(daemon: RealDaemon) -> dict[str, tuple[str, ...]]:
    """The models as any reader without the daemon finds them, with the digests of their files in order: each manifest
    whole, and all its bytes there."""
    found = {}
    for path in sorted(Path(daemon.root, "manifests").iterdir()):
        document = json.loads(path.read_bytes())
        digests = [file["blob"].removeprefix("sha256:") for file in document.get("files") or [document]]
        for digest in digests:
            blob = Path(daemon.root, "blobs", "sha256", digest[:2], digest, "data")
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == digest
        assert path.name == f"{document['name']}.json"
        found[path.stem] = tuple(sorted(digests))
    return found


def whole_names(daemon: RealDaemon) -> list[str]:
    return list(whole_models(daemon))


def ask(daemon: RealDaemon, op: str, fields: dict[str, Any]) -> tuple[bool, bool]:
    """Whether it was accepted, and whether it was answered with success."""
    accepted = False
    try:
        with daemon.connect() as wire:
            wire.request(op, **fields)
            while True:
                kind = wire.read()["type"]
                accepted = accepted or kind == "accepted"
                if kind in ("result", "error"):
                    return accepted, kind == "result"
    except (EOFError, OSError):
        return accepted, False


def all_ended(daemon: RealDaemon) -> bool:
    jobs = daemon.ask("job.list")["value"]["jobs"]
    return all(job["state"] in ("done", "failed", "cancelled") for job in jobs)


@pytest.mark.parametrize(("name", "call"), SWEPT)
def test_whenever_the_daemon_dies_every_name_is_whole(daemon: RealDaemon, name: str, call: str) -> None:
    verb = VERBS[name]
    for nth in range(1, LONGEST):
        here, there = f"a{nth}", f"b{nth}"
        path = daemon.file("a.gguf", CONTENT)
        assert daemon.ask("model.add", path=path, name=here)["type"] == "result"
        with killed_at(daemon, call, nth) as trace:
            accepted, answered = ask(daemon, verb.op, verb.fields(here, there))
        names = whole_names(daemon)
        assert names in verb.between(here, there)
        if answered:
            assert names == verb.after(here, there)
        if not trace.killed:
            assert answered
            assert nth > 1, f"{call} was never made"
            return
        daemon.start()
        assert whole_names(daemon) in verb.between(here, there)
        # What was accepted is in the ledger, and goes on. What was not may be in it or not.
        wait_until(lambda: all_ended(daemon), what="the end of all jobs")
        after = whole_names(daemon)
        assert after == verb.after(here, there) or (not accepted and after in verb.between(here, there))
        assert staging(daemon) == []
        if after != verb.after(here, there):
            assert ask(daemon, verb.op, verb.fields(here, there)) == (True, True)
        for left in whole_names(daemon):
            assert daemon.ask("model.resolve", name=left)["type"] == "result"
            assert daemon.ask("model.remove", name=left)["type"] == "result"
        assert daemon.ask("model.resolve", name=here)["code"] == "not_found"
    pytest.fail("the daemon dies each time")
