"""Seen from the kernel: before a daemon says that a model was added, copied, moved or removed, every name that it gave
or took away is on stable storage, and every byte was before its name was."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from modeld.store.disk.layout import Layout
from real_daemon import RealDaemon
from syscall_order import SUCCESS, TRACED, order_faults, synced_paths, without_syncs_of
from traced_daemon import failing_at, strace, traced

__all__ = ["strace"]

pytestmark = pytest.mark.usefixtures("strace")


def state_of(directory: str) -> dict[str, int]:
    """Each name, and the file that it stands for."""
    return {entry.name: entry.inode() for entry in os.scandir(directory)}


def one_file(daemon: RealDaemon) -> dict[str, Any]:
    return {"path": daemon.file("new.gguf", b"GGUF new"), "name": "new"}


def big_file(daemon: RealDaemon) -> dict[str, Any]:
    return {"path": daemon.file("new.gguf", os.urandom(9 << 20)), "name": "new"}


def directory(daemon: RealDaemon, files: int = 3) -> dict[str, Any]:
    path = os.path.join(daemon.room, "many")
    os.mkdir(path)
    for number in range(files):
        daemon.file(f"many/{number}.safetensors", b"%d" % number * 5000)
    return {"path": path, "name": "new"}


def many_files(daemon: RealDaemon) -> dict[str, Any]:
    """Synced together."""
    return directory(daemon, 20)


def replacing(daemon: RealDaemon) -> dict[str, Any]:
    return {"path": daemon.file("new.gguf", b"GGUF new"), "name": "old", "replace": True}


CHANGES: dict[str, tuple[str, Callable[[RealDaemon], dict[str, Any]]]] = {
    "add": ("model.add", one_file),
    "add a big file": ("model.add", big_file),
    "add a directory": ("model.add", directory),
    "add many files": ("model.add", many_files),
    "replace": ("model.add", replacing),
    "cp": ("model.copy", lambda _: {"source": "old", "destination": "new"}),
    "mv": ("model.move", lambda _: {"source": "old", "destination": "new"}),
    "rm": ("model.remove", lambda _: {"name": "old"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_synced_before_the_reply(daemon: RealDaemon, name: str) -> None:
    assert daemon.ask("model.add", path=daemon.file("old.gguf", b"GGUF old"), name="old")["type"] == "result"
    op, fields = CHANGES[name]
    asked = fields(daemon)
    with daemon.connect() as wire, traced(daemon, TRACED, full=True) as trace:
        assert wire.ask(op, **asked)["type"] == "result"
    layout, log = Layout(daemon.root), trace.text
    assert order_faults(log, layout, replies=1) == []
    # The check itself notices each sync that is missing.
    public = (layout.blobs_dir, layout.manifests_dir, layout.staging)
    watched = [path for path in synced_paths(log) if path.startswith(public)]
    assert watched or "syncfs" in log
    for path in watched:
        assert order_faults(without_syncs_of(log, path), layout, replies=1) != [], path


def first_failure_after_the_change(daemon: RealDaemon, op: str, asked: dict[str, Any]) -> dict[str, Any]:
    manifests = Layout(daemon.root).manifests_dir
    before = state_of(manifests)
    for nth in range(1, 30):
        with failing_at(daemon, "fsync", nth, "EIO") as trace:
            reply = daemon.ask(op, **asked)
        assert (trace.failed, reply["type"]) == (True, "error"), "a sync failed, and that was not told"
        if state_of(manifests) != before:
            return reply
    pytest.fail("nothing ever changes")


@pytest.mark.parametrize("name", ["add", "add a directory", "replace", "cp", "mv", "rm"])
def test_what_may_not_last_is_synced_by_the_next_try(daemon: RealDaemon, name: str) -> None:
    """The directory of the manifests could not be synced after the change: who asks again is told a success only
    after that has been done."""
    assert daemon.ask("model.add", path=daemon.file("old.gguf", b"GGUF old"), name="old")["type"] == "result"
    op, fields = CHANGES[name]
    asked = fields(daemon)
    manifests = Layout(daemon.root).manifests_dir
    reply = first_failure_after_the_change(daemon, op, asked)
    assert (reply["details"]["outcome"], reply["retryable"]) == ("unknown", True)
    assert "the same request again" in reply["hint"]
    with daemon.connect() as wire, traced(daemon, TRACED, full=True) as trace:
        assert wire.ask(op, **asked)["type"] == "result"
    assert manifests in synced_paths(trace.text.split(SUCCESS)[0])
