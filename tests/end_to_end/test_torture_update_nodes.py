"""Four daemons as four machines get the same commands, some of which must fail at one step or another, and are killed
at any moment. Each ends at what the commands say, its name never stands between two versions, and a command that has
an outcome keeps it."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from end_to_end.test_names_killed import all_ended, whole_models
from rigs.real_daemon import RealDaemon, Wire
from rigs.rough_peers import SHORT
from rigs.scripted_server import Asked, Reply, Server, file_reply
from rigs.update_commands import command, content, digits
from rigs.waiting import wait_until

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

NODES = 4
ROUNDS = 1 if SHORT else 10
KILLS = 2 if SHORT else 12
"""Of each node in a round, at moments that nobody chose."""

LOAD_SECONDS = 0.5


@dataclass(frozen=True)
class Case:
    """A command, and how it ends on a machine of this number."""

    kind: str
    version: str
    given: dict[str, Any]

    def outcome(self, node: int) -> str:
        """The engine of the machines with even numbers refuses what it is to refuse."""
        match self.kind:
            case "good" | "unasked":
                return "applied"
            case "for one":
                return "applied" if node == 1 else "not_targeted"
            case "too big":
                return "does_not_fit"
            case "no rollback":
                return "failed"
            case "refused" if node % 2:
                return "applied"
        return "rolled_back"


CUT = "missing" if SHORT else "cut"
"""An answer that ends too early is asked for again, for more than a minute."""

KINDS = (
    *("good", "missing", "good", "other bytes", "refused", "good", "for one", "too big", CUT, "good"),
    *("unanswered", "good", "missing", "no rollback", "unasked", "refused", CUT, "good", "other bytes", "good"),
)
assert len(KINDS) == 20


def cases(url: str, round_: int) -> list[Case]:
    made = []
    for number, kind in enumerate(KINDS):
        version = f"{round_}.{number + 1}"
        path = {"missing": "missing", "no rollback": "missing", "other bytes": "other", "cut": "cut"}.get(kind, "file")
        changes: dict[str, Any] = {"rollback_model_id": "m-3b"}
        changes["auto_load"] = kind != "unasked"
        if kind == "for one":
            changes["target_nodes"] = ["node-1"]
        if kind == "no rollback":
            del changes["rollback_model_id"]
        of_document: dict[str, Any] = {"download_url": f"{url}/{path}/{version}.gguf"}
        if kind == "too big":
            of_document["requirements"] = {
                "min_vram_mb": 2**31,
                "recommended_vram_mb": 2**31,
                "min_ram_mb": 1,
                "execution_providers": ["cpu"],
                "architectures": ["aarch64", "x86_64"],
            }
        made.append(Case(kind, version, command(version, changes, **of_document)))
    return made


def route(asked: Asked) -> Reply:
    kind, _, name = asked.path.lstrip("/").partition("/")
    version = name.removesuffix(".gguf")
    if kind == "missing":
        return Reply(404)
    whole = content("other bytes" if kind == "other" else version)
    if kind == "cut":
        return Reply(200, {"Content-Length": str(len(whole)), "Connection": "close"}, whole[:-5])
    return file_reply(asked, whole)


@dataclass
class Node:
    number: int
    daemon: RealDaemon
    over: threading.Event = field(default_factory=threading.Event)
    refused: set[str] = field(default_factory=set)
    """Versions that the engine refuses on machines with even numbers, and those that it leaves without an answer."""
    unanswered: set[str] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)

    def engine(self) -> None:
        """Leases each new version that it is asked to load, as long as the daemon of the moment lives."""
        while not self.over.is_set():
            with (
                suppress(OSError, EOFError, AssertionError),
                self.daemon.connect() as wire,
                self.daemon.connect() as other,
            ):
                number = wire.request("events.subscribe", events=["model.load_requested"])
                while not self.over.is_set():
                    self._answer(other, wire.until(number, "event"))
            self.over.wait(0.02)

    def _answer(self, wire: Wire, event: dict[str, Any]) -> None:
        version = event["model"].removeprefix("m-3b-").removesuffix("-q4_k_m").replace("_", ".")
        if version in self.unanswered:
            return
        if version in self.refused and self.number % 2 == 0:
            wire.ask("model.refuse_load", command_id=event["command"], reason="too old an engine")
        else:
            lease = wire.ask("lease.acquire", name=event["model"])
            if lease["type"] == "result":
                wire.ask("lease.release", lease=lease["value"]["lease"])

    def reader(self) -> None:
        """Reads the name as any program does, without the daemon: it is there, whole, at every moment."""
        manifest = Path(self.daemon.root, "manifests", "m-3b.json")
        try:
            while not self.over.is_set():
                blob = json.loads(manifest.read_bytes())["blob"].removeprefix("sha256:")
                bytes_ = Path(self.daemon.root, "blobs", "sha256", blob[:2], blob, "data").read_bytes()
                assert bytes_.startswith(content("")), bytes_
                if not self.seen or self.seen[-1] != blob:
                    self.seen.append(blob)
                self.over.wait(0.01)
        except BaseException as fault:
            self.faults.append(fault)
            raise

    def send(self, case: Case) -> dict[str, Any] | None:
        """The outcome; None when the daemon died before it gave one."""
        try:
            reply = self.daemon.ask("model.update", command=case.given)
        except (OSError, EOFError):
            return None
        if reply["type"] == "result":
            value: dict[str, Any] = reply["value"]
            return value
        if reply.get("details", {}).get("outcome") == "failed":
            return {"outcome": "failed", "code": reply["code"]}
        assert reply["code"] in ("interrupted", "draining"), reply
        return None

    def killer(self, moments: random.Random) -> None:
        """Kills the daemon now and then, and starts it again."""
        for _ in range(KILLS):
            if self.over.wait(moments.uniform(0.05, 1.5)):
                return
            self.daemon.kill()
            self.daemon.start()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    with ExitStack() as closing:
        made = []
        for number in range(NODES):
            room = tmp_path / f"node-{number}"
            room.mkdir()
            daemon = RealDaemon(str(room))
            closing.callback(daemon.close)
            daemon.configure(f'[node]\nid = "node-{number}"\nload_within = "{LOAD_SECONDS}s"\n')
            made.append(Node(number, daemon.start()))
        yield made


def digest_of(daemon: RealDaemon) -> str:
    """Of what the name stands for."""
    blob: str = daemon.ask("model.resolve", name="m-3b")["value"]["blob"]
    return blob.removeprefix("sha256:")


def carried_out(node: Node, case: Case) -> dict[str, Any]:
    """Sent again until it has an outcome: a client does the same."""
    while (outcome := node.send(case)) is None:
        node.over.wait(0.05)
    return outcome


def test_each_machine_ends_at_the_commanded_or_the_rollback_model(nodes: list[Node]) -> None:
    with Server(route) as web:
        for node in nodes:
            first = node.daemon.ask("model.update", command=command("0", download_url=f"{web.url}/file/0.gguf"))
            assert first["value"]["outcome"] == "applied", first
        for round_ in range(ROUNDS):
            commands = cases(web.url, round_ + 1)
            threads = [threading.Thread(target=_round, args=(node, commands, round_)) for node in nodes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for node in nodes:
                assert not node.faults, node.faults
                _check(node, commands)


def _round(node: Node, commands: list[Case], round_: int) -> None:
    """Each command after the one before it has its outcome, so what the name stands for is known at every step."""
    node.over.clear()
    node.seen = [digest_of(node.daemon)]
    node.refused = {case.version for case in commands if case.kind == "refused"}
    node.unanswered = {case.version for case in commands if case.kind == "unanswered"}
    helpers = [
        threading.Thread(target=node.engine),
        threading.Thread(target=node.reader),
        threading.Thread(target=node.killer, args=(random.Random(round_ * NODES + node.number),)),
    ]
    for helper in helpers:
        helper.start()
    try:
        for case in commands:
            outcome = carried_out(node, case)
            expected = case.outcome(node.number)
            assert outcome["outcome"] == expected, (case.kind, outcome)
            again = carried_out(node, case)
            assert again["outcome"] == expected
    except BaseException as fault:
        node.faults.append(fault)
        raise
    finally:
        node.over.set()
        for helper in helpers:
            helper.join()


def _check(node: Node, commands: list[Case]) -> None:
    daemon = node.daemon
    wait_until(lambda: all_ended(daemon), what="the end of all jobs")
    applied = [case.version for case in commands if case.outcome(node.number) == "applied"]
    models = whole_models(daemon)
    assert models["m-3b"] == (digits(applied[-1]),)
    for version in applied:
        assert models[f"m-3b-{version.replace('.', '_')}-q4_k_m"] == (digits(version),)
    listed = daemon.ask("model.updates", limit=1000)["value"]
    outcomes = {each["command_id"]: each["outcome"] for each in listed["updates"]}
    assert len(outcomes) == len(listed["updates"]), "each command has one outcome"
    for case in commands:
        assert outcomes[case.given["command_id"]] == case.outcome(node.number)
    assert listed["pending"] == []
    known = {node.seen[0]} | {digits(version) for version in applied}
    assert set(node.seen) <= known, "no reader has seen anything but versions that were applied"
    assert digest_of(daemon) == digits(applied[-1])
