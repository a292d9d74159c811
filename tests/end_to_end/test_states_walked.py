"""One model through every situation of the table of states, over the socket: both vocabularies at each station.

situation                        on this machine   catalogue
registered, no bytes             available         pending
fetching                         downloading       pending
verified                         ready             active
leased                           loaded            active
suspect until verified again     suspect           pending
corrupt, or missing              failed            failed
mismatch, not strict             ready             failed
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from modelwire.knowledge.document import built
from rigs.decay import flip
from rigs.pull_rig import MIB, begun, gguf, hex_of
from rigs.real_daemon import RealDaemon
from rigs.repair_rig import blob_path
from rigs.scripted_server import Asked, Reply, Server, file_reply

CONTENT = gguf(3 * MIB, 41)
OTHER = gguf(MIB, 42)
CRAWL = 200_000
"""Bytes a second: the whole file would take fifteen."""

NOWHERE = {"local_path": None, "download_progress": 0.0, "verified_at": None, "error": None}


class Walk:
    """The model `name` as its daemon shows and lists it."""

    def __init__(self, daemon: RealDaemon, name: str, model_id: str) -> None:
        self.daemon = daemon
        self.name = name
        self.model_id = model_id

    def stands(self, status: str, catalogue: str, **node: Any) -> dict[str, Any]:
        """Asserts both vocabularies, with every field of the first, and returns what `show` has."""
        shown: dict[str, Any] = self.daemon.ask("model.show", name=self.name)["value"]
        assert shown["node"] == {"model_id": self.model_id, "status": status} | node
        assert (shown["state"], shown["catalogue_state"]) == (status, catalogue)
        (listed,) = self.daemon.ask("model.list", filter=f"state={status}")["value"]["models"]
        both = (listed["state"], listed["catalogue_state"])
        assert (listed["name"], *both) == (self.name, status, catalogue)
        given_out = node["local_path"] if status in ("ready", "loaded") else None
        assert (listed.get("path"), shown.get("path")) == (given_out, given_out)
        assert listed.get("progress") == (node["download_progress"] if status == "downloading" else None)
        if status == "failed":
            assert listed["reason"] == node["error"]
        return shown


def test_one_model_through_every_situation(daemon: RealDaemon) -> None:
    there = [True]

    def route(asked: Asked) -> Reply:
        return file_reply(asked, CONTENT) if there[0] else Reply(404)

    walk = Walk(daemon, "m", "m-3b")
    with Server(route) as web, daemon.connect() as wire:
        url = f"{web.url}/m.gguf"
        document = msgspec.to_builtins(built("m-3b", "M 3B", "llm", sha256=hex_of(CONTENT), download_url=url))
        assert daemon.ask("model.register", manifest=document, name="m")["type"] == "result"
        walk.stands("available", "pending", **NOWHERE)

        number = wire.request("model.pull", ref="m", max_rate=CRAWL)
        job = begun(wire, number, 1)
        assert daemon.ask("job.pause", job=job)["type"] == "result"
        here = daemon.ask("model.show", name="m")["value"]["progress"]
        assert 0 < here < 1
        walk.stands("downloading", "pending", **NOWHERE | {"download_progress": here})
        assert daemon.ask("job.configure", job=job, max_rate=0)["type"] == "result"
        assert daemon.ask("job.resume", job=job)["type"] == "result"
        assert wire.terminal(number)["type"] == "result"

        path = blob_path(daemon, CONTENT)
        ready = {"local_path": path, "download_progress": 1.0, "error": None}
        first = verified_at(daemon, "m")
        walk.stands("ready", "active", **ready, verified_at=first)

        lease = wire.ask("lease.acquire", name="m")["value"]["lease"]
        walk.stands("loaded", "active", **ready, verified_at=first)
        assert wire.ask("lease.release", lease=lease)["type"] == "result"
        walk.stands("ready", "active", **ready, verified_at=first)

        os.utime(path, (1, 1))
        walk.stands("suspect", "pending", **ready, verified_at=first)
        assert daemon.ask("model.verify", names=["m"])["value"]["ok"]
        second = verified_at(daemon, "m")
        assert second > first
        walk.stands("ready", "active", **ready, verified_at=second)

        flip(path, MIB)
        walk.stands("suspect", "pending", **ready, verified_at=second)
        assert not daemon.ask("model.verify", names=["m"])["value"]["ok"]
        corrupt = daemon.ask("model.show", name="m")["value"]
        assert "its blob is corrupt" in corrupt["reason"]
        walk.stands("failed", "failed", **ready | {"error": corrupt["reason"]}, verified_at=last_good(corrupt))

        there[0] = False
        assert daemon.ask("model.repair", names=["m"])["code"] == "source_not_found"
        walk.stands("failed", "failed", **ready | {"error": corrupt["reason"]}, verified_at=last_good(corrupt))
        there[0] = True
        assert daemon.ask("model.repair", names=["m"])["type"] == "result"
        third = verified_at(daemon, "m")
        assert third > second
        walk.stands("ready", "active", **ready, verified_at=third)

        os.unlink(path)
        missing = ready | {"error": f"its blob is missing: {path}"}
        walk.stands("failed", "failed", **missing, verified_at=third)
        there[0] = False
        assert daemon.ask("model.pull", ref=url, name="m")["code"] == "source_not_found"
        walk.stands("failed", "failed", **missing, verified_at=third)
        daemon.kill()
        daemon.start()
        walk.stands("failed", "failed", **missing, verified_at=third)
        there[0] = True
        assert daemon.ask("model.pull", ref=url, name="m")["type"] == "result"
        fourth = verified_at(daemon, "m")
        assert fourth > third
        walk.stands("ready", "active", **ready, verified_at=fourth)


def test_bytes_that_were_not_expected_until_they_match(daemon: RealDaemon) -> None:
    walk, file = Walk(daemon, "o", "o"), daemon.file("o.gguf", OTHER)

    def provision(expected: bytes, *, strict: bool) -> dict[str, Any]:
        return daemon.ask("model.provision", ref=file, name="o", sha256=hex_of(expected), strict=strict)

    assert provision(CONTENT, strict=True)["code"] == "digest_mismatch"
    assert daemon.ask("model.show", name="o")["code"] == "not_found"
    assert daemon.ask("model.list")["value"]["models"] == []

    assert provision(CONTENT, strict=False)["value"]["outcome"] == "mismatch"
    ready = {"local_path": blob_path(daemon, OTHER), "download_progress": 1.0, "error": None}
    moment = verified_at(daemon, "o")
    shown = walk.stands("ready", "failed", **ready, verified_at=moment)
    assert hex_of(OTHER) in shown["reason"]
    assert hex_of(CONTENT) in shown["reason"]

    assert provision(OTHER, strict=False)["value"]["outcome"] == "match"
    shown = walk.stands("ready", "active", **ready, verified_at=verified_at(daemon, "o"))
    assert "reason" not in shown


def verified_at(daemon: RealDaemon, name: str) -> str:
    moment: str = daemon.ask("model.show", name=name)["value"]["verified_at"]
    return moment


def last_good(shown: dict[str, Any]) -> str:
    """The record of a blob that was set aside is gone: its history has the time."""
    moments: list[str] = [past["time"] for past in shown["history"] if past["outcome"] in ("added", "verified")]
    return moments[-1]
