"""Seen from the kernel: before a daemon says that a model was added, copied, moved or removed, every name that it gave
or took away is on stable storage, and every byte was before its name was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from rigs.real_daemon import RealDaemon
from rigs.scripted_server import Server, file_reply
from rigs.syscall_order import SUCCESS, TRACED, order_faults, synced_paths, without_syncs_of
from rigs.traced_daemon import failing_at, strace, traced

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
    "add by link": ("model.add", lambda daemon: one_file(daemon) | {"link": True}),
    "add by move": ("model.add", lambda daemon: one_file(daemon) | {"move": True}),
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
    adopted = asked["path"] if "link" in asked or "move" in asked else None
    assert order_faults(log, layout, replies=1, adopted=adopted) == []
    # The check itself notices each sync that is missing.
    public = (layout.blobs_dir, layout.manifests_dir, layout.staging, layout.linked)
    watched = [path for path in synced_paths(log) if path.startswith(public) or path in (adopted, layout.private)]
    assert watched or "syncfs" in log
    for path in watched:
        assert order_faults(without_syncs_of(log, path), layout, replies=1, adopted=adopted) != [], path


@pytest.mark.parametrize("files", [1, 3, 20], ids=["a file", "a directory", "many files"])
def test_blobs_of_another_tool_are_synced_before_the_reply(daemon: RealDaemon, files: int) -> None:
    """It has named them and never cared to sync: what is said to be here has to last."""
    asked = one_file(daemon) if files == 1 else directory(daemon, files)
    layout = Layout(daemon.root)
    contents = [Path(asked["path"])] if files == 1 else [*Path(asked["path"]).iterdir()]
    names = []
    for content in contents:
        names.append(Path(layout.blob(Digest(hashlib.sha256(content.read_bytes()).hexdigest()))))
        names[-1].parent.mkdir(parents=True)
        names[-1].write_bytes(content.read_bytes())
    with daemon.connect() as wire, traced(daemon, TRACED, full=True) as trace:
        reply = wire.ask("model.add", **asked)
    assert reply["value"]["reused"] is True
    until_the_manifest = trace.text.split("manifests/new.json")[0]
    synced = synced_paths(until_the_manifest)
    assert {str(name) for name in names} <= synced, "the bytes"
    directories = {str(name.parents[level]) for name in names for level in range(3)}
    assert directories <= synced or (files > 8 and "syncfs(" in until_the_manifest), "the names"


def test_a_manifest_of_another_tool_is_synced_before_the_reply(daemon: RealDaemon) -> None:
    asked = one_file(daemon)
    assert daemon.ask("model.add", **asked)["type"] == "result"
    manifest = Path(Layout(daemon.root).manifests_dir, "new.json")
    document = manifest.read_bytes()
    assert daemon.ask("model.remove", name="new")["type"] == "result"
    manifest.write_bytes(document)
    with daemon.connect() as wire, traced(daemon, TRACED, full=True) as trace:
        assert wire.ask("model.add", **asked)["type"] == "result"
    assert manifest.read_bytes() == document, "it says already what is asked for"
    assert synced_paths(trace.text.split(SUCCESS)[0]) >= {str(manifest), str(manifest.parent)}


@pytest.mark.parametrize("known", [True, False], ids=["a known digest", "an unknown digest"])
def test_a_download_is_synced_before_the_reply(daemon: RealDaemon, known: bool) -> None:
    content = b"GGUF" + os.urandom(5 << 20)
    expected = {"sha256": hashlib.sha256(content).hexdigest()} if known else {}
    with Server(lambda asked: file_reply(asked, content)) as web, daemon.connect() as wire:
        with traced(daemon, TRACED, full=True) as trace:
            assert wire.ask("model.pull", ref=f"{web.url}/new.gguf", name="new", **expected)["type"] == "result"
    layout, log = Layout(daemon.root), trace.text
    assert order_faults(log, layout, replies=1) == []
    tail = [path for path in synced_paths(log) if path.endswith(".tmp") or path.startswith(layout.manifests_dir)]
    assert len(tail) > 1
    for path in tail:
        assert order_faults(without_syncs_of(log, path), layout, replies=1) != [], path


def test_a_corrupt_blob_is_out_of_use_for_good_before_the_reply(daemon: RealDaemon) -> None:
    path = daemon.ask("model.add", **one_file(daemon))["value"]["path"]
    os.chmod(path, 0o644)
    Path(path).write_bytes(b"XXXX new")
    with daemon.connect() as wire, traced(daemon, TRACED, full=True) as trace:
        assert wire.ask("model.verify", names=["new"])["value"]["ok"] is False
    assert not os.path.exists(path)
    after = trace.text.split("corrupt-blob.bin")[1].split(SUCCESS)[0]
    assert synced_paths(after) >= {Layout(daemon.root).quarantine_dir, os.path.dirname(path)}


def first_failure_after_the_change(daemon: RealDaemon, op: str, asked: dict[str, Any]) -> dict[str, Any]:
    manifests = Layout(daemon.root).manifests_dir
    before = state_of(manifests)
    with traced(daemon, "trace=fsync", "inject=fsync:error=EIO", path=manifests) as trace:
        reply = daemon.ask(op, **asked)
        assert (trace.failed, reply["type"]) == (True, "error")
    assert state_of(manifests) != before
    return reply


@pytest.mark.parametrize("name", ["add", "add a directory", "replace", "cp", "mv", "rm"])
def test_each_sync_that_fails_is_told(daemon: RealDaemon, name: str) -> None:
    """What an earlier try has synced and recorded, a later one does not sync again."""
    assert daemon.ask("model.add", path=daemon.file("old.gguf", b"GGUF old"), name="old")["type"] == "result"
    op, fields = CHANGES[name]
    asked = fields(daemon)
    for nth in range(1, 30):
        with failing_at(daemon, "fsync", nth, "EIO") as trace:
            reply = daemon.ask(op, **asked)
        assert reply["type"] == ("error" if trace.failed else "result")
        if not trace.failed:
            assert nth > 1, "nothing is ever synced"
            return
    pytest.fail("the sweep has no end")


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
