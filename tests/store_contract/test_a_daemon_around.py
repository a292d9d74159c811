"""The founding contract, part A, the lines about the daemon around the store: those that no other suite shows through a
real daemon. Its gate, its peers and its limits are in `end_to_end`."""

from __future__ import annotations

import hashlib
import json
import os
from itertools import pairwise
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon
from rigs.registries import OllamaDouble, descriptor
from rigs.scripted_server import Asked, Reply, Server, file_reply

MIB = 1 << 20
EVERY = 32 * MIB
KIND = "application/vnd.docker.distribution.manifest.v2+json"


def phases(daemon: RealDaemon) -> list[dict[str, Any]]:
    return [event for event in daemon.activity() if event["event"].startswith("phase.")]


def test_phases_that_every_watcher_sees(daemon: RealDaemon) -> None:
    """`checking_local {path}`, `download {downloaded_bytes, total_bytes, source_url}` at 0, then every 32 MiB or 5 s
    and at the end, `verify {path}`, `ready`; each with its job."""
    content = b"GGUF" + os.urandom(100 * MIB)
    digest = hashlib.sha256(content).hexdigest()
    with Server(lambda asked: file_reply(asked, content)) as web, daemon.connect() as watcher:
        number = watcher.request("events.subscribe")
        reply = daemon.ask("model.pull", ref=f"{web.url}/m.gguf", sha256=digest)
        assert reply["type"] == "result", reply
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["event"] != "job.done":
            event = watcher.until(number, "event", "lagged")
            assert event["type"] == "event"
            seen.append(event)
    recorded = phases(daemon)
    assert [event["event"] for event in seen if event["event"].startswith("phase.")] == [
        row["event"] for row in recorded
    ]
    downloads = [row for row in recorded if row["event"] == "phase.download"]
    others = [row["event"] for row in recorded if row["event"] != "phase.download"]
    assert others == ["phase.checking_local", "phase.verify", "phase.ready"]
    assert recorded[1:-2] == downloads
    counts = [row["downloaded_bytes"] for row in downloads]
    assert (counts[0], counts[-1]) == (0, len(content))
    assert counts == sorted(counts)
    steps = [after - before for before, after in pairwise(counts)]
    # A step may be overshot by what the connections bring between two looks.
    assert all(step <= EVERY + 16 * MIB for step in steps), steps
    assert {row["total_bytes"] for row in downloads} == {len(content)}
    assert {row["source_url"] for row in downloads} == {f"{web.url}/m.gguf"}
    assert {row["job"] for row in recorded} == {reply["value"]["job"]}
    assert recorded[0]["path"].endswith(f"{digest}/data")
    assert recorded[-2]["path"].endswith("/data.tmp")
    assert recorded[-1]["path"] == reply["value"]["path"]


@pytest.mark.parametrize("op", ["model.add", "model.pull"])
def test_phases_of_what_is_on_this_machine(daemon: RealDaemon, op: str) -> None:
    path = os.path.join(daemon.room, "m.gguf")
    with open(path, "wb") as file:
        file.write(b"GGUF" + os.urandom(MIB))
    wanted = {"path": path} if op == "model.add" else {"ref": path}
    first = daemon.ask(op, name="m", **wanted)
    assert first["type"] == "result", first
    seen = phases(daemon)
    assert [event["event"] for event in seen][:2] == ["phase.checking_local", "phase.copy"]
    assert seen[-1]["event"] == "phase.ready"
    assert seen[-1]["path"] == first["value"]["path"]
    assert {event["path"] for event in seen[:-1]} == {path}
    assert {(event["job"], event["model"]) for event in seen} == {(first["value"]["job"], "m")}
    link = daemon.ask("model.add", path=path, name="linked", link=True)
    assert link["type"] == "result", link
    stored = daemon.ask("model.pull", ref="m")
    assert stored["type"] == "result", stored
    rows = [event for event in phases(daemon) if event["job"] == stored["value"]["job"]]
    assert [row["event"] for row in rows] == ["phase.checking_local", "phase.ready"]
    assert (rows[0]["path"], rows[1]["path"]) == (f"{daemon.root}/manifests/m.json", first["value"]["path"])


def test_a_quarantine_of_an_add_is_a_phase_too(daemon: RealDaemon) -> None:
    path = os.path.join(daemon.room, "m.gguf")
    with open(path, "wb") as file:
        file.write(b"GGUF" + os.urandom(MIB))
    reply = daemon.ask("model.add", path=path, name="m", sha256="0" * 64)
    assert reply["code"] == "digest_mismatch", reply
    kept = reply["details"].get("quarantine_path")
    rows = [event for event in phases(daemon) if event["event"] == "phase.quarantine"]
    assert [row["quarantine_path"] for row in rows] == ([kept] if kept else [])


def test_the_source_url_is_the_address_without_its_secrets(daemon: RealDaemon) -> None:
    with Server(lambda asked: file_reply(asked, b"GGUF secret" * 100)) as web:
        host = web.url.removeprefix("http://")
        address = f"http://user:pass@{host}/d%20x/m.gguf?part=1&token=s3cret&X-Amz-Signature=abc#there"
        reply = daemon.ask("model.pull", ref=address, name="m")
        assert reply["type"] == "result", reply
        assert list(reply["value"]["served"]) == [f"http at {web.url}"], "plain http is not called https"
    downloads = [row for row in phases(daemon) if row["event"] == "phase.download"]
    assert {row["source_url"] for row in downloads} == {f"{web.url}/d%20x/m.gguf?part=1"}


def test_breaker_three_failures_of_a_source_and_it_is_left_alone(stopped: RealDaemon) -> None:
    """The other source goes on serving, and no client waits for the one that fails."""
    with OllamaDouble() as mirror, OllamaDouble() as origin:
        stopped.configure(f'[[mirror]]\nmatch = "ollama:"\nurl = "http://{mirror.host}"\n')
        stopped.start()
        route, failing = mirror.server.route, [True]
        mirror.server.route = lambda asked: Reply(500) if failing[0] else route(asked)
        for number in range(8):
            weights, config = b"GGUF %d" % number, b"{}"
            layers = [descriptor("application/vnd.ollama.image.model", weights)]
            manifest = {
                "schemaVersion": 2,
                "mediaType": KIND,
                "config": descriptor("application/vnd.docker.container.image.v1+json", config),
                "layers": layers,
            }
            for content in (weights, config):
                origin.blob(content)
            origin.put("library/tiny", f"t{number}", manifest)
            reply = stopped.ask("model.pull", ref=f"ollama:{origin.host}/library/tiny:t{number}")
            assert reply["type"] == "result", reply
        assert len(mirror.server.asked) == 3, [asked.target for asked in mirror.server.asked]


def test_breaker_a_wrong_digest_is_no_failure_of_the_transport(daemon: RealDaemon) -> None:
    """It condemns the source for that digest: other bytes of the same source are fetched as before."""

    def route(asked: Asked) -> Reply:
        return file_reply(asked, asked.path.encode() * 100)

    with Server(route) as web:
        for number in range(5):
            reply = daemon.ask("model.pull", ref=f"{web.url}/{number}.gguf", sha256=f"{number:064x}", name=f"m{number}")
            assert reply["code"] == "digest_mismatch", reply
        good = hashlib.sha256(b"/good.gguf" * 100).hexdigest()
        reply = daemon.ask("model.pull", ref=f"{web.url}/good.gguf", sha256=good, name="good")
        assert reply["type"] == "result", reply


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
@pytest.mark.parametrize("lock", ["store", "endpoint"])
def test_lock_for_life_links_and_what_is_no_file_are_refused(stopped: RealDaemon, lock: str, kind: str) -> None:
    stopped.start()
    path = f"{stopped.root}/.modeld/lock" if lock == "store" else f"{stopped.socket}.lock"
    assert os.path.isfile(path)
    assert stopped.terminate() == 0
    assert os.path.isfile(path), "it is never deleted"
    os.unlink(path)
    mine = stopped.file("mine", b"mine")
    match kind:
        case "link":
            os.symlink(mine, path)
        case "pipe":
            os.mkfifo(path)
        case "directory":
            os.mkdir(path)
    word, _, said = stopped.spawn().partition(" ")
    assert word == "ERROR"
    assert path in json.loads(said)["message"]
    assert stopped.wait() != 0
    with open(mine, "rb") as file:
        assert file.read() == b"mine"
    os.rmdir(path) if kind == "directory" else os.unlink(path)
    stopped.start()
