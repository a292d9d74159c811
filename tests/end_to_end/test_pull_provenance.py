"""What a reference means is what its source says. A digest that a user gives names bytes, and says nothing of a source.

Each user here is a real process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rigs.hub_server import Hub, Repo
from rigs.pull_rig import gguf, hex_of, manifest
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import FOREIGN_UID, connect_as, needs_root, write_access
from rigs.scripted_server import Server, file_reply

pytestmark = needs_root

REAL, FORGED = gguf(50_000, 61), gguf(50_000, 62)
FORGER, VICTIM = FOREIGN_UID, FOREIGN_UID + 1


@pytest.fixture
def hub() -> Iterator[Hub]:
    repo = Repo({"m-Q4_K_M.gguf": REAL, "small.gguf": REAL}, lfs=frozenset({"m-Q4_K_M.gguf"}))
    with Hub({"org/repo": repo}) as made:
        yield made


@pytest.fixture
def daemon(shared: RealDaemon, hub: Hub) -> RealDaemon:
    """With the forger's bytes in its store."""
    write_access(shared, {str(FORGER): "write", str(VICTIM): "write"})
    with open(shared.config_path, "a", encoding="utf-8") as file:
        file.write('networks = ["127.0.0.1/32"]\n')
    shared.environ["HF_ENDPOINT"] = hub.url
    shared.start()
    shared.file("forged.gguf", FORGED)
    added = ask(shared, FORGER, "model.add", path=f"{shared.room}/forged.gguf", name="forged")
    assert added["type"] == "result", added
    return shared


def ask(daemon: RealDaemon, uid: int, op: str, **fields: Any) -> dict[str, Any]:
    with connect_as(daemon.socket, uid) as wire:
        wire.read()
        if op == "model.add" and uid:
            fields |= wire.hand_over(fields["path"])
        return wire.ask(op, **fields)


def forge(daemon: RealDaemon, ref: str) -> None:
    reply = ask(daemon, FORGER, "model.pull", ref=ref, sha256=hex_of(FORGED))
    assert reply["type"] == "result", reply
    assert reply["value"]["revision"] is None
    source = manifest(daemon, reply["value"]["name"].replace(":", "+"))["source"]
    assert set(source.values()) <= {""}, source


def assert_means_nothing(daemon: RealDaemon, ref: str) -> None:
    """Neither by the memory nor by a manifest."""
    for name in (None, "another"):
        reply = ask(daemon, VICTIM, "model.pull", ref=ref, offline=True, **({"name": name} if name else {}))
        assert (reply["type"], reply.get("code")) == ("error", "offline"), reply


@pytest.mark.parametrize("ref", ["hf:meta-llama/Llama/m.gguf", "https://models.example/m.gguf", "s3://bucket/m.gguf"])
def test_a_digest_that_answers_for_a_reference_gives_it_no_meaning(daemon: RealDaemon, ref: str) -> None:
    forge(daemon, ref)
    assert_means_nothing(daemon, ref)


@pytest.mark.parametrize("ref", ["hf:org/repo:Q4_K_M", "hf:org/repo/small.gguf@main"])
def test_a_source_that_was_asked_and_said_otherwise_has_no_part_in_it(daemon: RealDaemon, hub: Hub, ref: str) -> None:
    """The hub states another digest, or none."""
    forge(daemon, ref)
    assert_means_nothing(daemon, ref)
    reply = ask(daemon, 0, "model.pull", ref=ref, name="real")
    assert reply["value"]["blob"] == f"sha256:{hex_of(REAL)}"
    assert manifest(daemon, "real")["source"]["revision"] == hub.repos["org/repo"].commit
    theirs = ask(daemon, VICTIM, "model.pull", ref=ref, name="theirs", offline=True)
    assert theirs["value"]["blob"] == f"sha256:{hex_of(REAL)}"
    # What the source has said in truth is not lent to other bytes.
    forged = ask(daemon, FORGER, "model.pull", ref=ref, name="again", sha256=hex_of(FORGED))
    assert forged["type"] == "result", forged
    assert set(manifest(daemon, "again")["source"].values()) <= {""}


def test_what_a_source_gave_whole_for_a_digest_is_its_meaning(daemon: RealDaemon) -> None:
    with Server(lambda asked: file_reply(asked, REAL)) as server:
        pinned = ask(daemon, FORGER, "model.pull", ref=f"{server.url}/m.gguf", sha256=hex_of(REAL))
        assert pinned["type"] == "result", pinned
    again = ask(daemon, VICTIM, "model.pull", ref=f"{server.url}/m.gguf", name="again", offline=True)
    assert again["value"]["blob"] == f"sha256:{hex_of(REAL)}"


def test_bytes_from_disk_under_the_name_of_a_pull_do_not_get_its_reference(daemon: RealDaemon) -> None:
    ref = "hf:org/repo:Q4_K_M"
    name = ask(daemon, 0, "model.pull", ref=ref)["value"]["name"]
    replaced = daemon.ask("model.add", path=f"{daemon.room}/forged.gguf", name=name, replace=True)
    assert replaced["type"] == "result", replaced
    source = manifest(daemon, name.replace(":", "+"))["source"]
    assert "reference" not in source, source
