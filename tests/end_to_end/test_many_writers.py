"""Eight processes with a client each and two foreign tools write into one store at once: what is published is whole,
with locks and without any."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.lockless_daemon import LocklessDaemon
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import staging
from rigs.waiting import wait_until

CLIENTS = 8
ROUNDS = 12
SHARED = 3
"""Contents that all clients add, each under names of its own and under one common name."""

FOREIGN = textwrap.dedent(
    """
    import fcntl, json, os, random, sys, time
    root, tool = sys.argv[1], sys.argv[2]
    template = json.load(open(sys.argv[3]))
    print("WRITING", flush=True)
    os.set_blocking(0, False)
    while sys.stdin.buffer.read(1) is None:
        name = f"common-{random.randrange(3)}"
        with open(os.path.join(root, "locks", name + ".lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            time.sleep(random.random() / 50)
            own = f"{tool}-{random.randrange(4)}"
            path = os.path.join(root, "manifests", own + ".json")
            with open(path + "." + tool, "w") as file:
                json.dump({**template, "name": own, "produced_by": tool + "/1"}, file)
            os.replace(path + "." + tool, path)
    """
)
"""Another tool, as it may write to a shared store: until its standard input ends."""

CLIENT = textwrap.dedent(
    """
    import json, sys
    import modelclient

    wishes = json.loads(sys.argv[1])
    faults = []
    with modelclient.Client() as client:
        print("READY", flush=True)
        sys.stdin.readline()
        for path, name in wishes:
            try:
                client.add(path, name=name).result()
            except modelclient.WireError as fault:
                faults.append(f"{name}: {fault.code} {fault}")
    print(json.dumps(faults), flush=True)
    """
)


@pytest.fixture(params=["locks", "no locks"])
def writable(room: Path, request: pytest.FixtureRequest) -> Iterator[RealDaemon]:
    made = RealDaemon(str(room)) if request.param == "locks" else LocklessDaemon(str(room))
    yield made.start()
    made.close()


def run(script: str, *arguments: str, environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def wishes_of(daemon: RealDaemon, client: int, shared: list[str]) -> list[tuple[str, str]]:
    wishes = []
    for turn in range(ROUNDS):
        own = daemon.file(f"own-{client}-{turn}.bin", f"{client} {turn}".encode() * 1000)
        wishes += [
            (own, f"own-{client}-{turn}"),
            (shared[turn % SHARED], f"mine-{client}-{turn}"),
            (shared[turn % SHARED], f"common-{turn % SHARED}"),
        ]
    return wishes


def test_eight_processes_and_two_foreign_tools_corrupt_nothing(writable: RealDaemon) -> None:
    daemon = writable
    shared = [daemon.file(f"shared-{n}.bin", random.Random(n).randbytes(300_000)) for n in range(SHARED)]
    assert daemon.ask("model.add", path=shared[0], name="template")["type"] == "result"
    template = os.path.join(daemon.root, "manifests", "template.json")
    tools = [run(FOREIGN, daemon.root, tool, template, environ=daemon.environ) for tool in ("alpha", "beta")]
    clients = [
        run(CLIENT, json.dumps(wishes_of(daemon, client, shared)), environ=daemon.environ) for client in range(CLIENTS)
    ]
    try:
        assert [said(tool) for tool in tools] == ["WRITING"] * 2
        assert [said(client) for client in clients] == ["READY"] * CLIENTS
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("\n")
            client.stdin.flush()
        told = [client.communicate(timeout=90)[0] for client in clients]
        for tool in tools:
            tool.communicate("x", timeout=30)
    finally:
        for process in (*tools, *clients):
            process.kill()
            process.communicate()
    assert [json.loads(each) for each in told] == [[]] * CLIENTS
    assert [process.returncode for process in (*tools, *clients)] == [0] * (CLIENTS + 2)
    every_name_stands_for_its_bytes(daemon)
    wait_until(lambda: not staging(daemon), what="an empty staging directory")


def every_name_stands_for_its_bytes(daemon: RealDaemon) -> None:
    page = daemon.ask("model.list")["value"]
    assert page["damaged"] == []
    names = {model["name"] for model in page["models"]}
    while page["next"]:
        page = daemon.ask("model.list", after=page["next"])["value"]
        names |= {model["name"] for model in page["models"]}
    expected = {f"own-{client}-{turn}" for client in range(CLIENTS) for turn in range(ROUNDS)}
    expected |= {f"mine-{client}-{turn}" for client in range(CLIENTS) for turn in range(ROUNDS)}
    expected |= {f"common-{n}" for n in range(SHARED)}
    assert expected <= names
    assert names - expected - {"template"} <= {f"{tool}-{n}" for tool in ("alpha", "beta") for n in range(4)}
    seen: dict[str, str] = {}
    for name in sorted(names):
        resolved = daemon.ask("model.resolve", name=name)["value"]
        path = resolved["path"]
        if path not in seen:
            seen[path] = "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert seen[path] == resolved["blob"], name
        with open(os.path.join(daemon.root, "manifests", f"{name}.json"), encoding="utf-8") as file:
            assert json.load(file)["blob"] == resolved["blob"]
