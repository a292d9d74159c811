"""A pull whose content seems to be here already: no blob is believed that nobody has verified, at no moment of it."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import held_name
from rigs.scripted_server import Asked, Reply, Server, file_reply
from rigs.waiting import wait_until

CONTENT = b"GGUF" + bytes(50_000)
BAD = b"BAD!" + bytes(50_000)
HEX = hashlib.sha256(CONTENT).hexdigest()


def blob_of(daemon: RealDaemon) -> Path:
    return Path(Layout(daemon.root).blob(Digest(HEX)))


def plant_bad(daemon: RealDaemon) -> None:
    """As a tool that hashes nothing would leave it, or a disk that forgets."""
    blob = blob_of(daemon)
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.unlink(missing_ok=True)
    blob.write_bytes(BAD)


def assert_good(daemon: RealDaemon, reply: dict[str, Any]) -> None:
    assert reply["type"] == "result", reply
    assert Path(reply["value"]["path"]).read_bytes() == CONTENT
    assert [path.read_bytes() for path in Path(daemon.root, "locks", "quarantine").iterdir()] == [BAD]


def test_a_bad_blob_that_was_there_before(daemon: RealDaemon) -> None:
    plant_bad(daemon)
    with Server(lambda asked: file_reply(asked, CONTENT)) as web:
        assert_good(daemon, daemon.ask("model.pull", ref=f"{web.url}/m.gguf", name="m", sha256=HEX))


def test_a_bad_blob_that_appears_while_the_bytes_come(daemon: RealDaemon) -> None:
    asked_for, go_on = threading.Event(), threading.Event()

    def route(asked: Asked) -> Reply:
        if asked.method == "GET":
            asked_for.set()
            go_on.wait(30)
        return file_reply(asked, CONTENT)

    with Server(route) as web, daemon.connect() as wire:
        number = wire.request("model.pull", ref=f"{web.url}/m.gguf", name="m", sha256=HEX)
        try:
            assert asked_for.wait(30)
            plant_bad(daemon)
        finally:
            go_on.set()
        assert_good(daemon, wire.terminal(number))


def test_a_good_blob_that_goes_bad_before_the_name_is_given(daemon: RealDaemon) -> None:
    assert daemon.ask("model.add", path=daemon.file("a.gguf", CONTENT), name="a")["type"] == "result"
    with Server(lambda asked: file_reply(asked, CONTENT)) as web, daemon.connect() as wire:
        asked = {"ref": f"{web.url}/m.gguf", "name": "m", "sha256": HEX}
        with held_name(daemon, "m"):
            number = wire.request("model.pull", **asked)
            job = wire.until(number, "accepted")["job"]
            wait_until(lambda: is_found(daemon, job), what="a pull that waits for its name")
            plant_bad(daemon)
        assert_good(daemon, wire.terminal(number))
        assert len([each for each in web.asked if each.method == "GET"]) > 0, "the good bytes came from the source"


def is_found(daemon: RealDaemon, job: str) -> bool:
    """All bytes are accounted for: what is left to do is to give the name."""
    progress = daemon.ask("job.show", job=job)["value"].get("progress") or {}
    return progress.get("bytes_done") == len(CONTENT)
