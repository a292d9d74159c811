"""Pulling through a real daemon: from a real nginx, from a hub, from this machine, and what goes wrong on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.hub_server import Hub, Repo
from rigs.pull_rig import (
    MIB,
    ctl,
    everything_kept,
    failed,
    gguf,
    hex_of,
    job_state,
    manifest,
    partials,
    pull,
    pulled,
    put,
    sent,
)
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import Nginx, nginx, nginx_path
from rigs.scripted_server import Asked, Reply, Server, file_reply

needs_nginx = pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")

CONTENT = gguf(9 * MIB + 77)
TOKEN = "hf_" + "x7Qw" * 8


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with nginx(tmp_path / "nginx") as made:
        yield made


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {
        "model-Q4_K_M.gguf": CONTENT,
        "config.json": b'{"a": 1}',
        "README.md": b"# read me",
        "big/optimizer.bin": b"o" * 5000,
    }
    open_to_all = Repo(files, lfs=frozenset({"model-Q4_K_M.gguf", "big/optimizer.bin"}))
    private = Repo(
        {"secret.gguf": gguf(MIB, 5)}, lfs=frozenset({"secret.gguf"}), private=True, tokens=frozenset({TOKEN})
    )
    gated = Repo({"g.gguf": gguf(MIB, 6)}, lfs=frozenset({"g.gguf"}), gated="manual", tokens=frozenset({TOKEN}))
    with Hub({"org/repo": open_to_all, "org/private": private, "org/gated": gated}, valid=frozenset({TOKEN})) as made:
        yield made


@pytest.fixture
def hubbed(stopped: RealDaemon, hub: Hub) -> RealDaemon:
    stopped.environ["HF_ENDPOINT"] = hub.url
    return stopped.start()


# -- the web


@needs_nginx
def test_a_file_of_the_web_becomes_a_model(daemon: RealDaemon, web: Nginx) -> None:
    address = put(web, "Tiny Model.gguf", CONTENT).replace(" ", "%20")
    with daemon.connect() as wire:
        number = wire.request("model.pull", ref=address, license="mit")
        seen = []
        while (reply := wire.read())["type"] != "result":
            assert reply["type"] in ("accepted", "progress"), reply
            seen.append(reply)
    value = reply["value"]
    assert reply["id"] == number
    with open(value["path"], "rb") as file:
        assert file.read() == CONTENT
    assert (value["name"], value["blob"], value["format"]) == ("Tiny-Model", f"sha256:{hex_of(CONTENT)}", "gguf")
    assert (value["reused"], value["current"], value["source"]) == (False, False, address)
    assert sum(value["served"].values()) == len(CONTENT)
    last = seen[-1]
    assert last["bytes_done"] == last["bytes_total"] == last["verified_bytes"] == len(CONTENT)
    assert last["network_bytes"] >= len(CONTENT)
    assert last["source"].endswith(web.plain)
    document = manifest(daemon, "Tiny-Model")
    assert document["license"] == "mit"
    assert document["source"]["filename"] == "Tiny Model.gguf"
    assert document["source"]["registry"] in web.plain
    assert partials(daemon) == []
    phases = [event["event"] for event in daemon.activity() if event["event"].startswith("phase.")]
    assert phases[:2] == ["phase.checking_local", "phase.download"]
    assert phases[-1] == "phase.ready"


@needs_nginx
def test_pulled_again_it_is_current_and_nothing_is_fetched(daemon: RealDaemon, web: Nginx) -> None:
    address = put(web, "a.gguf", CONTENT)
    first = pulled(daemon, address)
    before = sent(web)
    again = pulled(daemon, address)
    assert again["current"] is again["reused"] is True
    assert again["path"] == first["path"]
    assert sent(web) - before <= 1
    other = pulled(daemon, address, name="b")
    assert (other["current"], other["reused"], other["blob"]) == (False, True, first["blob"])
    assert sent(web) - before <= 1


@needs_nginx
def test_another_version_at_the_address_takes_the_name(daemon: RealDaemon, web: Nginx) -> None:
    address = put(web, "a.gguf", CONTENT)
    old = pulled(daemon, address)
    newer = gguf(2 * MIB, 9)
    put(web, "a.gguf", newer)
    os.utime(web.files / "a.gguf", (1, 1))  # whatever the clock's grain: another version has another date
    new = pulled(daemon, address)
    assert new["blob"] == f"sha256:{hex_of(newer)}"
    assert (new["current"], new["reused"]) == (False, False)
    assert os.path.exists(old["path"])  # until a sweep


@needs_nginx
def test_a_name_that_is_taken_by_something_else_is_refused_before_a_byte_is_fetched(
    daemon: RealDaemon, web: Nginx
) -> None:
    daemon.ask("model.add", path=daemon.file("other.gguf", gguf(1000, 2)), name="mine")
    address = put(web, "a.gguf", CONTENT)
    failed(daemon, address, "already_exists", name="mine", sha256=hex_of(CONTENT))
    assert sent(web) == 0
    assert pulled(daemon, address, name="mine", replace=True)["blob"] == f"sha256:{hex_of(CONTENT)}"


@needs_nginx
def test_what_the_digest_names_is_here_already_and_the_source_is_not_even_asked(daemon: RealDaemon, web: Nginx) -> None:
    daemon.ask("model.add", path=daemon.file("other.gguf", CONTENT), name="mine")
    value = pulled(daemon, put(web, "a.gguf", CONTENT), sha256=hex_of(CONTENT))
    assert (value["name"], value["reused"]) == ("a", True)
    assert web.requests() == []


@needs_nginx
def test_a_wrong_digest_goes_to_quarantine_and_is_not_fetched_again(daemon: RealDaemon, web: Nginx) -> None:
    address = put(web, "a.gguf", CONTENT)
    expected = "0" * 64
    reply = failed(daemon, address, "digest_mismatch", sha256=expected)
    assert reply["details"]["expected_sha256"] == expected
    assert reply["details"]["actual_sha256"] == hex_of(CONTENT)
    with open(reply["details"]["quarantine_path"], "rb") as file:
        assert file.read() == CONTENT
    assert [event for event in daemon.activity() if event["event"] == "phase.quarantine"]
    before = sent(web)
    daemon.kill()
    daemon.start()
    failed(daemon, address, "digest_mismatch", sha256=expected)
    assert sent(web) == before, "who gave wrong bytes is remembered, across a restart too"
    assert daemon.ask("model.list")["value"]["models"] == []
    assert ctl(daemon, "pull", address, "--sha256", expected).returncode == 6


@needs_nginx
def test_what_is_not_there_what_is_down_and_what_is_offline(daemon: RealDaemon, web: Nginx) -> None:
    failed(daemon, f"{web.plain}/none.gguf", "source_not_found")
    assert ctl(daemon, "pull", f"{web.plain}/none.gguf").returncode == 3
    failed(daemon, "http://127.0.0.1:1/a.gguf", "source_unavailable")
    assert ctl(daemon, "pull", "http://127.0.0.1:1/a.gguf").returncode == 10
    before = len(web.requests())
    failed(daemon, f"{web.plain}/none.gguf", "offline", offline=True)
    done = ctl(daemon, "pull", f"{web.plain}/none.gguf", "--offline")
    assert done.returncode == 10
    assert "no connection may be opened" in done.stderr
    assert len(web.requests()) == before


@needs_nginx
def test_offline_gives_what_is_here(stopped: RealDaemon, web: Nginx) -> None:
    address = put(web, "a.gguf", CONTENT)
    first = pulled(stopped.start(), address)
    stopped.terminate()
    asked = len(web.requests())
    stopped.configure("[transfer]\noffline = true\n")
    stopped.start()
    assert pulled(stopped, address)["current"] is True
    assert pulled(stopped, address, name="b")["blob"] == first["blob"]
    failed(stopped, f"{web.plain}/b.gguf", "offline")
    assert len(web.requests()) == asked


@needs_nginx
def test_a_name_that_is_taken_is_refused_by_the_size_alone_where_no_digest_is_told(
    daemon: RealDaemon, web: Nginx
) -> None:
    daemon.ask("model.add", path=daemon.file("other.gguf", gguf(1000, 2)), name="mine")
    failed(daemon, put(web, "a.gguf", CONTENT), "already_exists", name="mine")
    assert sent(web) == 0


def test_a_source_that_stumbles_is_tried_again_and_each_try_is_told(daemon: RealDaemon) -> None:
    stumbles = iter([True, False, True, True])

    def route(asked: Asked) -> Reply:
        if asked.method == "GET" and next(stumbles, False):
            return Reply(503)
        return file_reply(asked, CONTENT)

    with Server(route) as server:
        value = pulled(daemon, f"{server.url}/a.gguf")
    assert value["blob"] == f"sha256:{hex_of(CONTENT)}"
    retries = [event for event in daemon.activity() if event["event"] == "transfer.retry"]
    assert retries
    assert all("503" in event["message"] and event["attempt"] >= 1 for event in retries)
    (job,) = daemon.ask("job.list")["value"]["jobs"]
    assert {event["job"] for event in retries} == {job["id"]}


@needs_nginx
def test_offline_the_manifest_knows_too_when_the_catalogue_is_lost(stopped: RealDaemon, web: Nginx) -> None:
    address = put(web, "a.gguf", CONTENT)
    first = pulled(stopped.start(), address)
    stopped.terminate()
    for path in Path(stopped.root, ".modeld").glob("catalog*"):
        path.unlink()
    again = pulled(stopped.start(), address, offline=True)
    assert (again["path"], again["current"]) == (first["path"], True)


def test_a_server_that_tells_no_length_needs_a_digest(daemon: RealDaemon) -> None:
    def route(asked: Asked) -> Reply:
        if asked.method == "HEAD":
            return Reply(405)
        return Reply(200, {"Connection": "close", "Content-Type": "application/octet-stream"}, CONTENT)

    with Server(route) as server:
        reply = failed(daemon, f"{server.url}/a.gguf", "source_unavailable")
        assert "does not say how long the file is" in reply["message"]
        assert "--sha256" in reply["hint"]
        value = pulled(daemon, f"{server.url}/a.gguf", sha256=hex_of(CONTENT))
    assert value["blob"] == f"sha256:{hex_of(CONTENT)}"


# -- the hub


def test_some_files_of_a_repository_become_one_model(hubbed: RealDaemon, hub: Hub) -> None:
    value = pulled(hubbed, "hf:org/repo", include=["*.gguf", "*.json"], exclude=["*/optimizer*"])
    assert [file["path"] for file in value["files"]] == ["config.json", "model-Q4_K_M.gguf"]
    assert value["revision"] == hub.repos["org/repo"].commit
    with open(os.path.join(value["path"], "model-Q4_K_M.gguf"), "rb") as file:
        assert file.read() == CONTENT
    document = manifest(hubbed, value["name"])
    assert document["license"] == "apache-2.0"
    assert document["source"]["repo"] == "org/repo"
    assert document["source"]["revision"] == hub.repos["org/repo"].commit
    before = len(hub.cdn.asked)
    again = pulled(hubbed, "hf:org/repo", include=["*.gguf", "*.json"], exclude=["*/optimizer*"])
    assert again["current"] is True
    assert len(hub.cdn.asked) == before
    failed(hubbed, "hf:org/repo", "already_exists", name=value["name"])  # all files are another model than some
    failed(hubbed, "hf:org/repo", "offline", name="whole", offline=True)
    more = pulled(hubbed, "hf:org/repo", name="whole")
    assert len(more["files"]) == 4
    assert more["revision"] == value["revision"]
    assert pulled(hubbed, "hf:org/repo", name="whole", offline=True)["current"] is True


def test_a_branch_that_moves_is_followed(hubbed: RealDaemon, hub: Hub) -> None:
    old = pulled(hubbed, "hf:org/repo:Q4_K_M")
    hub.repos["org/repo"].files["model-Q4_K_M.gguf"] = gguf(MIB, 3)
    new = pulled(hubbed, "hf:org/repo:Q4_K_M")
    assert new["name"] == old["name"]
    assert new["revision"] != old["revision"]
    assert new["blob"] != old["blob"]


def test_gated_and_private_need_a_token_which_is_written_nowhere(stopped: RealDaemon, hub: Hub) -> None:
    stopped.environ["HF_ENDPOINT"] = hub.url
    stopped.start()
    reply = failed(stopped, "hf:org/gated/g.gguf", "source_unauthorized")
    assert "gated" in (reply["message"] + reply["hint"]).lower()
    assert ctl(stopped, "pull", "hf:org/gated/g.gguf").returncode == 4
    stopped.terminate()
    stopped.environ["HF_TOKEN"] = TOKEN
    stopped.start()
    pulled(stopped, "hf:org/private/secret.gguf")
    pulled(stopped, "hf:org/gated/g.gguf")
    told = [stopped.ask("job.list"), stopped.ask("daemon.status"), stopped.ask("model.show", name="secret")]
    assert TOKEN not in repr(told)
    assert TOKEN.encode() not in everything_kept(stopped.room)


@needs_nginx
def test_a_password_in_the_reference_is_written_nowhere(daemon: RealDaemon, web: Nginx) -> None:
    put(web, "a.gguf", CONTENT)
    secret, signature = "pa55w0rd-very-secret", "s1gnature-very-secret"
    address = web.plain.replace("://", f"://user:{secret}@") + f"/a.gguf?X-Amz-Signature={signature}"
    value = pulled(daemon, address)
    failed(daemon, address.replace("a.gguf", "none.gguf"), "source_not_found")
    told = repr([value, daemon.ask("job.list"), daemon.ask("daemon.status"), daemon.ask("model.show", name="a")])
    kept = everything_kept(daemon.room)
    for hidden in (secret, signature):
        assert hidden not in told
        assert hidden.encode() not in kept


# -- this machine


def test_a_path_is_added_and_a_name_is_what_is_here(daemon: RealDaemon) -> None:
    path = daemon.file("local.gguf", CONTENT)
    value = pulled(daemon, "./local.gguf", directory=daemon.room)
    assert (value["name"], value["source"]) == ("local", f"local:{path}")
    assert pulled(daemon, "local")["current"] is True
    assert pulled(daemon, "local", offline=True)["path"] == value["path"]
    failed(daemon, "nobody", "not_found")
    done = ctl(daemon, "pull", "./local.gguf", "--name", "again")
    assert done.returncode == 0, done.stderr
    assert "its bytes were there already" in done.stdout


def test_what_is_no_reference_is_refused_with_the_forms(daemon: RealDaemon) -> None:
    reply = pull(daemon, "gopher://host/x")
    assert reply["code"] == "invalid_request"
    assert "hf:org/repo" in reply["hint"]
    assert pull(daemon, "http://models.example/x.gguf")["code"] == "invalid_request"
    assert pull(daemon, "hf:a/b", sha256="abc")["code"] == "invalid_digest"
    assert pull(daemon, "hf:a/b", name="a/b")["code"] == "invalid_name"
    assert ctl(daemon, "pull", "gopher://host/x").returncode == 2
    assert daemon.ask("job.list")["value"]["jobs"] == []


@pytest.mark.parametrize("rate", ["3", "fast", "999B/s", "-5MB", "inf"])
def test_a_rate_that_is_none_is_a_fault_of_usage(daemon: RealDaemon, rate: str) -> None:
    done = ctl(daemon, "pull", "hf:a/b", f"--max-rate={rate}")
    assert done.returncode == 2
    assert "write 20MB for 20 megabytes a second" in done.stderr


@needs_nginx
def test_what_the_command_prints(daemon: RealDaemon, web: Nginx) -> None:
    address = put(web, "a.gguf", CONTENT)
    first = ctl(daemon, "pull", address, "--max-rate", "500MB/s")
    path = daemon.ask("model.resolve", name="a")["value"]["path"]
    assert first.stdout.splitlines() == [f"a  {len(CONTENT) / 1e6:.2f} MB  gguf", path], first.stderr
    again = ctl(daemon, "pull", address)
    assert again.stdout.splitlines()[0].endswith("gguf, current")
    assert ctl(daemon, "pull", address, "-q").stdout == "a\n"
    told = json.loads(ctl(daemon, "pull", address, "--json").stdout)
    assert {"name", "blob", "size_bytes", "format", "path", "reused", "job", "files", "source"} <= told.keys()
    detached = ctl(daemon, "pull", address, "--name", "b", "--detach", "-q")
    assert detached.returncode == 0
    assert job_state(daemon, detached.stdout.strip(), "done")["value"]["name"] == "b"


def test_a_bare_name_is_not_said_to_be_in_the_store(daemon: RealDaemon) -> None:
    """Of a file with the client, for one, nothing is known there."""
    reply = pull(daemon, "m.gguf", name="x")
    assert reply["code"] == "invalid_request"
    assert "is in the store" not in reply["message"]
    assert "./m.gguf" in reply["hint"]
    assert reply["details"] == {"name": "m.gguf"}
