"""The founding contract, part A, the lines about how a manifest comes to be and who else is there meanwhile."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon
from rigs.scripted_server import Asked, Reply, Server, file_reply
from rigs.waiting import wait_until
from store_contract.test_a_shared_store import CONTENT, HEX, publish_by_hand, strictly_read

POWERLESS = ("setpriv", "--inh-caps=-all", "--bounding-set=-all,+sys_ptrace") if os.geteuid() == 0 else ()
"""Root without its capabilities obeys the modes of files as any user does. It may still look at other processes of
root, as a user may at its own."""


def value(reply: dict[str, Any]) -> dict[str, Any]:
    assert reply["type"] == "result", reply
    result: dict[str, Any] = reply["value"]
    return result


# -- the layout


def test_layout_a_manifest_that_may_not_be_read_is_an_error_that_names_the_file(stopped: RealDaemon) -> None:
    stopped.start(prefix=POWERLESS)
    path = publish_by_hand(stopped, "closed")
    os.chmod(path, 0)
    for op in ("model.resolve", "model.show"):
        reply = stopped.ask(op, name="closed")
        assert (reply["code"], path in reply["message"]) == ("permission_denied", True), reply
    assert value(stopped.ask("model.list"))["models"] == []
    os.chmod(path, 0o644)
    assert value(stopped.ask("model.resolve", name="closed"))["state"] == "ready"


def test_layout_a_download_lies_where_no_other_tool_writes(daemon: RealDaemon) -> None:
    going_on = threading.Event()
    asked_for: list[str] = []

    def route(asked: Asked) -> Reply:
        if asked.method == "GET":
            asked_for.append(asked.target)
            going_on.wait(30)
        return file_reply(asked, CONTENT)

    partial = f"{daemon.root}/.modeld/partials/sha256-{HEX}"
    with Server(route) as web, daemon.connect() as wire:
        number = wire.request("model.pull", ref=f"{web.url}/m.gguf", sha256=HEX, name="m")
        try:
            wait_until(lambda: os.path.exists(f"{partial}/data.tmp"), what="the partial")
            assert os.listdir(f"{daemon.root}/blobs/sha256") == [], (
                "neither a blob nor what other tools take for theirs"
            )
            assert os.listdir(f"{daemon.root}/manifests") == []
        finally:
            going_on.set()
        path = value(wire.terminal(number))["path"]
    assert path == f"{daemon.root}/blobs/sha256/{HEX[:2]}/{HEX}/data"
    assert not os.path.exists(partial)


def test_layout_the_lock_of_a_name_is_shared_with_other_tools(daemon: RealDaemon) -> None:
    """Held by another tool, nothing is published under the name; others are."""
    source = daemon.file("m.gguf", CONTENT)
    with open(f"{daemon.root}/locks/llama+8b.lock", "a") as lock, daemon.connect() as wire:
        fcntl.flock(lock, fcntl.LOCK_EX)
        number = wire.request("model.add", path=source, name="llama:8b")
        wire.until(number, "accepted")
        assert value(daemon.ask("model.add", path=source, name="other"))["name"] == "other"
        assert os.listdir(f"{daemon.root}/manifests") == ["other.json"]
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert value(wire.terminal(number))["name"] == "llama:8b"
    assert sorted(os.listdir(f"{daemon.root}/locks")) == ["llama+8b.lock", "other.lock", "quarantine"]


# -- the manifest


@pytest.mark.parametrize("text", [None, "Apache-2.0", "ü"])
def test_manifest_license_is_a_string_or_null(daemon: RealDaemon, text: str | None) -> None:
    fields = {} if text is None else {"license": text}
    value(daemon.ask("model.add", path=daemon.file("m.bin", b"no model that is known"), name="m", **fields))
    manifest = strictly_read(f"{daemon.root}/manifests/m.json")
    assert manifest.license == text
    if text is not None:
        assert text.encode() in Path(daemon.root, "manifests", "m.json").read_bytes(), "it is UTF-8"


def test_manifest_is_written_to_a_temporary_and_renamed(daemon: RealDaemon) -> None:
    """Whoever reads it while it is replaced finds the old one or the new one, whole."""
    path = Path(daemon.root, "manifests", "m.json")
    value(daemon.ask("model.add", path=daemon.file("m.gguf", b"GGUF 0"), name="m"))
    seen: set[str] = set()
    torn: list[bytes] = []
    enough = threading.Event()

    def read() -> None:
        while not enough.is_set():
            data = path.read_bytes()
            try:
                seen.add(json.loads(data)["blob"])
            except ValueError:
                torn.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    inodes = {path.stat().st_ino}
    for number in range(1, 20):
        source = daemon.file("m.gguf", b"GGUF %d" % number)
        value(daemon.ask("model.add", path=source, name="m", replace=True))
        inodes.add(path.stat().st_ino)
        assert os.listdir(path.parent) == ["m.json"]
    enough.set()
    reader.join(30)
    assert torn == []
    assert len(seen) > 1
    assert len(inodes) > 1, "it was never written in place"


@pytest.mark.parametrize("op", ["model.copy", "model.move"])
def test_manifest_unknown_fields_are_kept_by_a_copy_and_by_a_move(daemon: RealDaemon, op: str) -> None:
    path = publish_by_hand(daemon, "llama", fleet={"region": ["eu", 7]}, rank=10**30)
    before = json.loads(Path(path).read_bytes())
    value(daemon.ask(op, source="llama", destination="alpaca"))
    owner = {"owner_uid": os.geteuid()} if op == "model.copy" else {}
    after = json.loads(Path(daemon.root, "manifests", "alpaca.json").read_bytes())
    assert after == before | {"name": "alpaca"} | owner, "a copy belongs to who made it"


# -- names


@pytest.mark.parametrize("bad", ["", ".hidden", "a..b", "con", "a/b", "a\\b", "../up", "x" * 129, "a:b:c"])
def test_names_a_bad_one_leaves_nothing_on_disk_whatever_is_asked(daemon: RealDaemon, bad: str) -> None:
    publish_by_hand(daemon, "good")
    before = everything(daemon)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("model.add", {"path": daemon.file("m.gguf", CONTENT), "name": bad}),
        ("model.pull", {"ref": "http://127.0.0.1:9/m.gguf", "name": bad}),
        ("model.copy", {"source": "good", "destination": bad}),
        ("model.move", {"source": "good", "destination": bad}),
        ("model.remove", {"name": bad}),
        ("model.resolve", {"name": bad}),
        ("model.show", {"name": bad}),
    ]
    for op, fields in asked:
        reply = daemon.ask(op, **fields)
        assert (reply["type"], reply["code"]) == ("error", "invalid_name"), (op, reply)
        assert reply["hint"]
    assert everything(daemon) == before


def everything(daemon: RealDaemon) -> set[str]:
    """All names of the shared part of the store."""
    return {
        f"{directory}/{name}"
        for part in ("blobs", "manifests", "locks")
        for directory, directories, files in os.walk(f"{daemon.root}/{part}")
        for name in (*directories, *files)
    }


# -- the producer


def test_producer_bytes_that_do_not_match_are_quarantined_and_reported(daemon: RealDaemon) -> None:
    wrong = CONTENT + b"!"
    with Server(lambda asked: file_reply(asked, wrong)) as web:
        reply = daemon.ask("model.pull", ref=f"{web.url}/m.gguf", sha256=HEX, name="m")
        assert (reply["type"], reply["code"]) == ("error", "digest_mismatch")
        times = len(web.asked)
        again = daemon.ask("model.pull", ref=f"{web.url}/m.gguf", sha256=HEX, name="m")
        assert again["code"] == "digest_mismatch"
        assert [asked for asked in web.asked[times:] if asked.method == "GET"] == [], "that source is condemned"
    (event,) = [each for each in daemon.activity() if each["event"] == "phase.quarantine"]
    assert event["path"]
    assert (event["expected_sha256"], event["actual_sha256"]) == (HEX, hashlib.sha256(wrong).hexdigest())
    assert Path(event["quarantine_path"]).read_bytes() == wrong
    assert os.listdir(f"{daemon.root}/manifests") == []
    assert [path for path, _, names in os.walk(f"{daemon.root}/blobs") if names] == []
