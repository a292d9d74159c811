"""Eight clients and two foreign tools write into one store at once: whatever is published is whole."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

from real_daemon import RealDaemon, wait_until

CLIENTS = 8
ROUNDS = 12
SHARED = 3
"""Contents that all clients add, each under names of its own and under one common name."""

FOREIGN = textwrap.dedent(
    """
    import fcntl, json, os, random, sys, time
    root, tool, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    template = json.load(open(sys.argv[4]))
    ends = time.monotonic() + seconds
    print("WRITING", flush=True)
    while time.monotonic() < ends:
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


def test_eight_clients_and_two_foreign_tools_corrupt_nothing(daemon: RealDaemon) -> None:
    shared = [daemon.file(f"shared-{n}.bin", random.Random(n).randbytes(300_000)) for n in range(SHARED)]
    first = daemon.ask("model.add", path=shared[0], name="template")
    assert first["type"] == "result"
    template = os.path.join(daemon.root, "manifests", "template.json")
    tools = [
        subprocess.Popen(
            [sys.executable, "-c", FOREIGN, daemon.root, tool, "6", template], stdout=subprocess.PIPE, text=True
        )
        for tool in ("alpha", "beta")
    ]
    failures: list[str] = []

    def add_all(client: int) -> None:
        with daemon.connect() as wire:
            for turn in range(ROUNDS):
                own = daemon.file(f"own-{client}-{turn}.bin", f"{client} {turn}".encode() * 1000)
                for path, name in (
                    (own, f"own-{client}-{turn}"),
                    (shared[turn % SHARED], f"mine-{client}-{turn}"),
                    (shared[turn % SHARED], f"common-{turn % SHARED}"),
                ):
                    reply = wire.ask("model.add", path=path, name=name)
                    if reply["type"] != "result":
                        failures.append(f"{name}: {reply}")

    try:
        for tool in tools:
            assert tool.stdout is not None
            assert tool.stdout.readline() == "WRITING\n"
        threads = [threading.Thread(target=add_all, args=(client,)) for client in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
            assert not thread.is_alive()
    finally:
        for tool in tools:
            tool.wait(30)
            assert tool.stdout is not None
            tool.stdout.close()
    assert failures == []
    assert [tool.returncode for tool in tools] == [0, 0]
    every_name_stands_for_its_bytes(daemon)
    staging = Path(daemon.root, ".modeld", "staging")
    wait_until(lambda: not list(staging.iterdir()), what="an empty staging directory")


def every_name_stands_for_its_bytes(daemon: RealDaemon) -> None:
    listed = daemon.ask("model.list")["value"]
    assert listed["damaged"] == []
    names = {model["name"] for model in listed["models"]}
    expected = {f"own-{client}-{turn}" for client in range(CLIENTS) for turn in range(ROUNDS)}
    expected |= {f"mine-{client}-{turn}" for client in range(CLIENTS) for turn in range(ROUNDS)}
    expected |= {f"common-{n}" for n in range(SHARED)}
    page = listed
    while page["next"]:
        page = daemon.ask("model.list", after=page["next"])["value"]
        names |= {model["name"] for model in page["models"]}
    assert expected <= names
    seen: dict[str, str] = {}
    for name in sorted(names):
        resolved = daemon.ask("model.resolve", name=name)["value"]
        path = resolved["path"]
        if path not in seen:
            seen[path] = "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert seen[path] == resolved["blob"], name
        with open(os.path.join(daemon.root, "manifests", f"{name}.json"), encoding="utf-8") as file:
            assert json.load(file)["blob"] == resolved["blob"]
