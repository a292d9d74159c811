"""Invalid requests to add: one typed error each, through a real daemon, and nothing is left."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import staging
from rigs.waiting import wait_until
from store_contract.test_a_producer import POWERLESS, everything

CONTENT = b"GGUF" + bytes(1000)
HEX = hashlib.sha256(CONTENT).hexdigest()
HOWS: list[dict[str, bool]] = [{}, {"move": True}, {"link": True}]


def _empty_directory(path: str) -> None:
    os.mkdir(path)


def _socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def _pipe(path: str) -> None:
    os.mkfifo(path)


def _loop(path: str) -> None:
    os.symlink(path, path)


def _dangling(path: str) -> None:
    os.symlink(f"{path}-nowhere", path)


def _nothing(_path: str) -> None:
    pass


def _below_a_file(path: str) -> None:
    Path(os.path.dirname(path)).rmdir()
    Path(os.path.dirname(path)).write_bytes(CONTENT)


def _device(path: str) -> None:
    os.symlink("/dev/zero", path)


BAD: dict[str, tuple[Callable[[str], None], set[str]]] = {
    "an empty directory": (_empty_directory, {"invalid_request"}),
    "a socket": (_socket, {"invalid_request"}),
    "a named pipe": (_pipe, {"invalid_request"}),
    "a device": (_device, {"invalid_request"}),
    "a link to itself": (_loop, {"invalid_request"}),
    "a dangling link": (_dangling, {"source_not_found", "invalid_request"}),
    "nothing": (_nothing, {"source_not_found"}),
    "a path below a file": (_below_a_file, {"source_not_found"}),
}


def refused(daemon: RealDaemon, codes: set[str], **fields: Any) -> dict[str, Any]:
    """One typed error that says what to do or leaves no question, twice the same; nothing has changed."""
    before, descriptors = everything(daemon), daemon.descriptors()
    replies = [daemon.ask("model.add", **fields) for _ in range(2)]
    for reply in replies:
        assert (reply["type"], reply["code"] in codes) == ("error", True), reply
        assert len(reply["message"]) > 15
    assert replies[0]["message"] == replies[1]["message"]
    assert everything(daemon) == before
    assert staging(daemon) == []
    wait_until(lambda: daemon.descriptors() <= descriptors, what="as many descriptors as before")
    assert not daemon.ask("daemon.status")["value"].get("reserved_bytes")
    return replies[0]


@pytest.mark.parametrize("how", HOWS, ids=["copy", "move", "link"])
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_file(daemon: RealDaemon, kind: str, how: dict[str, bool]) -> None:
    make, codes = BAD[kind]
    os.mkdir(f"{daemon.room}/inside")
    path = f"{daemon.room}/inside/thing.gguf"
    make(path)
    there = os.path.lexists(path)
    assert path in refused(daemon, codes, path=path, name="m", **how)["message"]
    assert os.path.lexists(path) == there


@pytest.mark.parametrize(
    "path", ["", "relative.gguf", "../up.gguf", "/tmp/nul\0.gguf", "/" + "x" * 300, "/" + "x/" * 3000]
)
def test_what_is_no_path(daemon: RealDaemon, path: str) -> None:
    refused(daemon, {"invalid_request", "source_not_found"}, path=path, name="m")


def test_a_directory_where_one_file_is_meant(daemon: RealDaemon) -> None:
    path = os.path.join(daemon.room, "many")
    os.mkdir(path)
    daemon.file("many/a.gguf", CONTENT)
    daemon.file("many/b.gguf", CONTENT)
    assert "2 files" in refused(daemon, {"invalid_request"}, path=path, name="m", sha256=HEX)["message"]


@pytest.mark.parametrize("how", HOWS, ids=["copy", "move", "link"])
@pytest.mark.parametrize("closed", ["the file", "its directory"])
def test_a_file_that_cannot_be_read(stopped: RealDaemon, closed: str, how: dict[str, bool]) -> None:
    stopped.start(prefix=POWERLESS)
    inside = os.path.join(stopped.room, "inside")
    os.mkdir(inside)
    path = stopped.file("inside/m.gguf", CONTENT)
    closed_path = path if closed == "the file" else inside
    os.chmod(closed_path, 0)
    try:
        reply = refused(stopped, {"permission_denied"}, path=path, name="m", **how)
    finally:
        os.chmod(closed_path, 0o700)
    assert reply["hint"]
    assert Path(path).read_bytes() == CONTENT
    assert stopped.ask("model.add", path=path, name="m", **how)["type"] == "result", "the same request, no restart"


@pytest.mark.parametrize("change", ["shrinks", "grows", "is emptied", "is written to"])
def test_a_file_that_changes_while_it_is_read(held: HeldDaemon, change: str) -> None:
    held.start()
    size = 12 << 20
    path = held.file("m.bin", os.urandom(size))
    with held.connect() as wire:
        number = wire.request("model.add", path=path, name="m")
        wait_until(lambda: len(staging(held)) == 1, what="the copy has begun")
        match change:
            case "shrinks":
                os.truncate(path, size // 2)
            case "is emptied":
                os.truncate(path, 0)
            case "grows":
                os.truncate(path, size + 1)
            case "is written to":
                with open(path, "r+b") as file:
                    file.seek(size - 1)
                    file.write(b"!")
        held.release()
        reply = wire.terminal(number)
    assert (reply["type"], reply["code"]) == ("error", "source_unavailable"), reply
    assert path in reply["message"]
    assert reply["hint"]
    assert staging(held) == []
    assert everything(held) == {f"{held.root}/blobs/sha256", f"{held.root}/locks/quarantine"}
    assert held.ask("model.add", path=path, name="m")["type"] == "result", "the same request, no restart"


@pytest.mark.parametrize("name", ["x" * 129, "t:" + "x" * 129, "../m", "a/../m", "..", "/m", "m/", "a\\b", "m\0"])
def test_a_name_that_is_too_long_or_leads_elsewhere(daemon: RealDaemon, name: str) -> None:
    reply = refused(daemon, {"invalid_name"}, path=daemon.file("m.gguf", CONTENT), name=name)
    assert reply["hint"]


@pytest.mark.parametrize("digest", [HEX.upper(), f"sha256:{HEX.upper()}", f"SHA256:{HEX}"])
def test_a_digest_in_uppercase(daemon: RealDaemon, digest: str) -> None:
    refused(daemon, {"invalid_digest"}, path=daemon.file("m.gguf", CONTENT), name="m", sha256=digest)


@pytest.mark.parametrize("how", HOWS, ids=["copy", "move", "link"])
def test_an_existing_name_without_replace(daemon: RealDaemon, how: dict[str, bool]) -> None:
    assert daemon.ask("model.add", path=daemon.file("old.gguf", b"old"), name="m")["type"] == "result"
    path = daemon.file("new.gguf", CONTENT)
    before = os.stat(path)
    reply = refused(daemon, {"already_exists"}, path=path, name="m", **how)
    assert ("'m'" in reply["message"], "--replace" in reply["hint"]) == (True, True)
    after = os.stat(path)
    assert (after.st_mode, after.st_nlink, after.st_ino) == (before.st_mode, before.st_nlink, before.st_ino)
    assert daemon.ask("model.add", path=path, name="m", replace=True, **how)["type"] == "result"


def test_bytes_that_are_not_what_was_promised_leave_nothing_but_the_quarantine(daemon: RealDaemon) -> None:
    before = everything(daemon)
    path = daemon.file("m.gguf", b"GGUF other")
    reply = daemon.ask("model.add", path=path, name="m", sha256=HEX)
    assert reply["code"] == "digest_mismatch"
    assert everything(daemon) - before == {reply["details"]["quarantine_path"]}
    # Times tell of a change to such a file only after two seconds: from then on it is refused unread.
    wait_until(lambda: time.time() - os.stat(path).st_ctime > 2.1, what="two seconds later")
    daemon.ask("model.add", path=path, name="m", sha256=HEX)
    refused(daemon, {"digest_mismatch"}, path=path, name="m", sha256=HEX)
