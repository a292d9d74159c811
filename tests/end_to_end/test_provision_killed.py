"""A provision whose daemon is killed: the next start ends it as if nothing had been, and records its outcome once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.dying_daemon import DyingDaemon
from rigs.pull_rig import MIB, begun, gguf, hex_of, job_state
from rigs.real_daemon import RealDaemon
from rigs.scripted_server import Asked, Reply, Server, file_reply

CONTENT, NEWER = gguf(24 * MIB + 5, 71), gguf(2 * MIB, 72)
WRONG = "0" * 64


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[DyingDaemon]:
    made = DyingDaemon(str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def web() -> Iterator[Server]:
    with Server(lambda asked: file_reply(asked, CONTENT)) as server:
        yield server


def provision(daemon: RealDaemon, ref: str, **fields: Any) -> dict[str, Any]:
    reply = daemon.ask("model.provision", ref=ref, **fields)
    assert reply["type"] == "result", reply
    value: dict[str, Any] = reply["value"]
    return value


def outcomes(daemon: RealDaemon, name: str) -> list[dict[str, Any]]:
    view = daemon.ask("model.show", name=name)["value"]
    return [each for each in view["history"] if "id" in (each.get("details") or {})]


def assert_ended(daemon: RealDaemon, job: str, ref: str) -> None:
    """Under the usual name, with the outcome in the job, in the history and in the state of the model."""
    value = job_state(daemon, job, "done", "failed")["value"]
    assert (value["name"], value["outcome"], value["id"]) == ("m", "mismatch", ref)
    assert WRONG in value["warning"]
    assert Path(value["local_path"]).read_bytes() == CONTENT
    (outcome,) = outcomes(daemon, "m")
    assert (outcome["outcome"], outcome["expected"], outcome["actual"]) == (
        "mismatch",
        f"sha256:{WRONG}",
        f"sha256:{hex_of(CONTENT)}",
    )
    assert outcome["job"] == job
    assert outcome["details"] == {"id": ref, "path": value["local_path"], "algo": "sha256", "strict": False}
    view = daemon.ask("model.show", name="m")["value"]
    assert (view["state"], view["catalogue_state"]) == ("ready", "failed")
    assert WRONG in view["reason"]


def assert_name_is_kept(daemon: RealDaemon, web: Server, ref: str) -> None:
    assert provision(daemon, ref, sha256=WRONG, strict=False)["name"] == "m"
    web.route = lambda asked: file_reply(asked, NEWER)
    newer = provision(daemon, ref, sha256=hex_of(NEWER))
    assert (newer["name"], newer["outcome"]) == ("m", "match")
    models = daemon.ask("model.list")["value"]["models"]
    assert [(model["name"], model["blob"]) for model in models] == [("m", f"sha256:{hex_of(NEWER)}")]


def test_in_the_middle_of_its_download(stopped: RealDaemon, web: Server) -> None:
    stopped.start()
    ref = f"{web.url}/m.gguf"
    with stopped.connect() as wire:
        fields: dict[str, Any] = {"ref": ref, "sha256": WRONG, "strict": False, "max_rate": 4_000_000}
        number = wire.request("model.provision", **fields, token="p-1", on_disconnect="continue")
        job = begun(wire, number, 4 * MIB)
        stopped.kill()
    stopped.start()
    stopped.ask("job.configure", job=job, max_rate=0)
    assert_ended(stopped, job, ref)
    again = provision(stopped, **fields, token="p-1")
    assert again["job"] == job
    assert len(outcomes(stopped, "m")) == 1
    assert_name_is_kept(stopped, web, ref)


def test_a_server_that_stops_in_the_middle(stopped: RealDaemon, web: Server) -> None:
    stopped.start()
    ref = f"{web.url}/m.gguf"

    def stopping(asked: Asked) -> Reply:
        whole = file_reply(asked, CONTENT)
        return whole if asked.method == "HEAD" else Reply(whole.status, whole.headers, whole.body[: 4 * MIB])

    web.route = stopping
    with stopped.connect() as wire:
        number = wire.request("model.provision", ref=ref, sha256=WRONG, strict=False, on_disconnect="continue")
        job = begun(wire, number, 2 * MIB)
        stopped.kill()
    web.route = lambda asked: file_reply(asked, CONTENT)
    stopped.start()
    assert_ended(stopped, job, ref)
    assert_name_is_kept(stopped, web, ref)


@pytest.mark.parametrize("step", ["recorded", "written"])
def test_around_its_publication(dying: DyingDaemon, web: Server, step: str) -> None:
    dying.dies_at(step).start()
    ref = f"{web.url}/m.gguf"
    with dying.connect() as wire:
        number = wire.request("model.provision", ref=ref, sha256=WRONG, strict=False, on_disconnect="continue")
        job: str = wire.until(number, "accepted")["job"]
        assert dying.died()
    there = Path(dying.root, "manifests", "m.json").exists()
    assert there == (step == "written")
    dying.dies_at(None).start()
    assert_ended(dying, job, ref)
    assert_name_is_kept(dying, web, ref)


def test_around_the_publication_of_several_files_of_which_the_first_stays(dying: DyingDaemon) -> None:
    """The digest that stands for the model does not say that all of it is there."""
    directory = Path(dying.room, "several")
    directory.mkdir()
    (directory / "a.gguf").write_bytes(NEWER)
    (directory / "b.txt").write_bytes(b"first")
    dying.start()
    name = provision(dying, str(directory))["name"]
    dying.terminate()
    (directory / "b.txt").write_bytes(b"second")
    dying.dies_at("recorded").start()
    with dying.connect() as wire:
        number = wire.request("model.provision", ref=str(directory), on_disconnect="continue")
        job: str = wire.until(number, "accepted")["job"]
        assert dying.died()
    dying.dies_at(None).start()
    value = job_state(dying, job, "done", "failed")["value"]
    assert value["name"] == name
    assert Path(value["local_path"], "b.txt").read_bytes() == b"second"
    assert [each["job"] == job for each in outcomes(dying, name)] == [False, True]
