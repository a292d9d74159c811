"""`--move` and `--link` with a digest: what was promised is checked against the file itself before any of it goes."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon
from rigs.rough_peers import held_name, staging
from rigs.waiting import wait_until

CONTENT = b"GGUF" + bytes(70_000)
HEX = hashlib.sha256(CONTENT).hexdigest()
LATER = b"later and longer"
OTHER = {"of the same size": b"MINE" + bytes(70_000), "of another size": b"MINE" + bytes(500)}


def refused(daemon: RealDaemon, path: str, **fields: Any) -> None:
    """With the file as it was, and nothing named."""
    before, content = os.stat(path), Path(path).read_bytes()
    reply = daemon.ask("model.add", path=path, **fields)
    assert (reply["type"], reply.get("code")) == ("error", "digest_mismatch"), reply
    assert reply["details"]["actual_sha256"] == hashlib.sha256(content).hexdigest()
    after = os.stat(path)
    assert Path(path).read_bytes() == content
    assert (after.st_ino, after.st_mode, after.st_nlink) == (before.st_ino, before.st_mode, before.st_nlink)
    assert daemon.ask("model.resolve", name=fields["name"])["code"] == "not_found"
    assert staging(daemon) == []


@pytest.mark.parametrize("kind", OTHER)
def test_move_a_file_that_is_not_the_blob_that_it_should_be_is_not_taken_away(daemon: RealDaemon, kind: str) -> None:
    """The digest is of a blob that is here. Nobody has the bytes of the file but the file."""
    assert daemon.ask("model.add", path=daemon.file("a.gguf", CONTENT), name="a")["type"] == "result"
    refused(daemon, daemon.file("mine.gguf", OTHER[kind]), name="m", sha256=HEX, move=True)


def test_move_a_file_that_is_the_blob_that_it_should_be_is_taken_away(daemon: RealDaemon) -> None:
    assert daemon.ask("model.add", path=daemon.file("a.gguf", CONTENT), name="a")["type"] == "result"
    path = daemon.file("mine.gguf", CONTENT)
    reply = daemon.ask("model.add", path=path, name="m", sha256=HEX, move=True)
    assert reply["value"]["reused"] is True
    assert not os.path.exists(path)
    assert os.stat(reply["value"]["path"]).st_nlink == 1
    assert staging(daemon) == []


def test_link_a_file_of_another_size_is_not_the_blob(daemon: RealDaemon) -> None:
    assert daemon.ask("model.add", path=daemon.file("a.gguf", CONTENT), name="a")["type"] == "result"
    refused(daemon, daemon.file("mine.gguf", OTHER["of another size"]), name="m", sha256=HEX, link=True)


@pytest.mark.parametrize("how", ["move", "link"])
def test_what_is_linked_already_is_known_for_what_it_is(daemon: RealDaemon, how: str) -> None:
    path = daemon.file("mine.gguf", OTHER["of the same size"])
    assert daemon.ask("model.add", path=path, name="mine", link=True)["type"] == "result"
    refused(daemon, path, name="m", sha256=HEX, **{how: True})
    assert daemon.ask("model.resolve", name="mine")["value"]["state"] == "ready"


@pytest.mark.parametrize("how", ["move", "link"])
def test_a_file_that_was_read_before_is_known_for_what_it_was(daemon: RealDaemon, how: str) -> None:
    path = daemon.file("mine.gguf", OTHER["of the same size"])
    # Times tell of a change to such a file only after two seconds: until then it is not remembered.
    wait_until(lambda: time.time() - os.stat(path).st_ctime > 2.1, what="two seconds later")
    assert daemon.ask("model.add", path=path, name="mine")["type"] == "result"
    refused(daemon, path, name="m", sha256=HEX, **{how: True})


def write_to(path: str, content: bytes) -> None:
    """As its owner may: the mode is no obstacle to who can change it."""
    os.chmod(path, 0o644)
    Path(path).write_bytes(content)


def adopted_while_the_name_is_held(daemon: RealDaemon, path: str, how: str) -> dict[str, Any]:
    """The file is read, and then written to before its model has a name."""
    with daemon.connect() as wire:
        with held_name(daemon, "m"):
            number = wire.request("model.add", path=path, name="m", **{how: True})
            job = wire.until(number, "accepted")["job"]
            wait_until(lambda: read_whole(daemon, job), what="all bytes are read")
            write_to(path, LATER)
        return wire.terminal(number)


def read_whole(daemon: RealDaemon, job: str) -> bool:
    progress = daemon.ask("job.show", job=job)["value"].get("progress") or {}
    return bool(progress) and progress["bytes_done"] == progress["bytes_total"] == len(CONTENT)


def test_move_a_file_that_is_written_to_after_it_was_read_is_not_the_blob(daemon: RealDaemon) -> None:
    path = daemon.file("mine.gguf", CONTENT)
    reply = adopted_while_the_name_is_held(daemon, path, "move")
    assert reply["code"] == "source_unavailable", reply
    assert path in reply["message"]
    assert Path(path).read_bytes() == LATER
    assert daemon.ask("model.resolve", name="m")["code"] == "not_found"
    assert staging(daemon) == []
    reply = daemon.ask("model.add", path=path, name="m", move=True)
    assert Path(reply["value"]["path"]).read_bytes() == LATER


def test_move_a_file_whose_bytes_are_here_and_that_is_written_to_stays(daemon: RealDaemon) -> None:
    """The bytes that were read are in the store; those that came later are nowhere else."""
    assert daemon.ask("model.add", path=daemon.file("a.gguf", CONTENT), name="a")["type"] == "result"
    path = daemon.file("mine.gguf", CONTENT)
    assert adopted_while_the_name_is_held(daemon, path, "move")["type"] == "result"
    assert Path(path).read_bytes() == LATER
    value = daemon.ask("model.resolve", name="m")["value"]
    assert Path(value["path"]).read_bytes() == CONTENT


def test_link_a_file_that_is_written_to_after_it_was_read_is_not_the_blob(daemon: RealDaemon) -> None:
    path = daemon.file("mine.gguf", CONTENT)
    assert adopted_while_the_name_is_held(daemon, path, "link")["code"] == "source_unavailable"
    assert daemon.ask("model.resolve", name="m")["code"] == "not_found"
    assert Path(path).read_bytes() == LATER
    assert staging(daemon) == []
