"""The thread of the event loop makes no call that a disk has to answer, whatever clients ask for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pytest

from modelwire.knowledge.document import built
from rigs.hub_server import Hub, Repo
from rigs.real_daemon import RealDaemon
from rigs.traced_daemon import strace, traced

__all__ = ["strace"]

DOCUMENT = msgspec.to_builtins(built("registered", "Registered", "llm"))
CALLS = "trace=%file,%desc,fsync,fdatasync,sync_file_range"
HARMLESS = re.compile(r"^(epoll_\w+|poll|recv\w*|send\w*|accept\w*|close)\(")
"""On sockets and on the queue of events; and the end of a descriptor, which was only read from."""


def calls_on_files(daemon: RealDaemon, text: str, *more: str) -> list[str]:
    """The calls that name a path of the daemon or one of these, or a descriptor of a file there."""
    paths = (daemon.root, daemon.state, *more)
    lines = [line for line in text.splitlines() if any(path in line for path in paths)]
    return [line for line in lines if HARMLESS.match(line) is None]


@pytest.mark.usefixtures("strace")
def test_the_event_loop_asks_no_disk(stopped: RealDaemon) -> None:
    stopped.start()
    directory = Path(stopped.room, "several")
    directory.mkdir()
    for name in ("config.json", "model.safetensors"):
        (directory / name).write_bytes(name.encode() * 100)
    moved = stopped.file("moved", b"GGUF moved")
    linked = stopped.file("linked", b"GGUF linked")
    with stopped.connect() as wire, traced(stopped, CALLS, full=True, threads=False) as trace:
        for op, fields in (
            ("model.add", {"path": stopped.file("first", b"GGUF first"), "name": "first"}),
            ("model.add", {"path": stopped.file("same", b"GGUF first"), "name": "same"}),
            ("model.add", {"path": str(directory), "name": "several"}),
            ("model.add", {"path": moved, "name": "moved", "move": True}),
            ("model.add", {"path": linked, "name": "linked", "link": True}),
            ("model.pull", {"ref": stopped.file("pulled.gguf", b"GGUF pulled")}),
            ("model.pull", {"ref": "first"}),
            ("model.copy", {"source": "first", "destination": "copy"}),
            ("model.copy", {"source": "first", "destination": "copy", "dry_run": True}),
            ("model.move", {"source": "copy", "destination": "other"}),
            ("model.resolve", {"name": "first"}),
            ("model.resolve", {"name": "first"}),
            ("model.resolve", {"name": "first"}),
            ("model.resolve", {"name": "several"}),
            ("model.resolve", {"name": "several", "file": "config.json"}),
            ("model.resolve", {"name": "nothing"}),
            ("model.list", {}),
            ("model.show", {"name": "several"}),
            ("model.fit", {"name": "several"}),
            ("model.register", {"manifest": DOCUMENT}),
            ("model.verify", {"all": True}),
            ("model.verify_signature", {"name": "several", "signature": "{}", "key": "k"}),
            ("model.remove", {"name": "several"}),
            ("store.usage", {}),
            ("store.quarantine", {}),
            ("store.sweep", {"grace_s": 0}),
            ("job.list", {}),
            ("daemon.status", {}),
        ):
            wire.ask(op, **fields)
        subscription = wire.request("events.subscribe", since=0)
        assert wire.until(subscription, "event")["seq"] > 0
    assert calls_on_files(stopped, trace.text, str(directory), moved, linked) == []
    assert os.path.exists(linked)


@pytest.mark.usefixtures("strace")
def test_the_event_loop_asks_no_disk_for_a_pull(stopped: RealDaemon) -> None:
    files = {"a.safetensors": b"a" * 1000, "b.safetensors": b"b" * 1000, "config.json": b"{}"}
    repo = Repo(files, lfs=frozenset({"a.safetensors", "b.safetensors"}))
    with Hub({"org/repo": repo}, valid=frozenset()) as hub:
        stopped.environ["HF_ENDPOINT"] = hub.url
        stopped.start()
        with stopped.connect() as wire, traced(stopped, CALLS, full=True, threads=False) as trace:
            for fields in (
                {"ref": "hf:org/repo", "name": "all"},
                {"ref": "hf:org/repo", "name": "all"},
                {"ref": "hf:org/repo", "name": "all", "offline": True},
                {"ref": "hf:org/repo/a.safetensors", "name": "one"},
            ):
                assert wire.ask("model.pull", **fields)["type"] == "result"
            assert wire.ask("model.pull", ref="hf:org/nothing", name="none")["type"] == "error"
    assert calls_on_files(stopped, trace.text) == []
