"""The filesystem of a store is unmounted under a running daemon, and comes back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon
from rigs.rough_peers import needs_root

CONTENT = b"GGUF" + bytes(3000)

ASKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("model.resolve", {"name": "kept"}),
    ("model.show", {"name": "kept"}),
    ("lease.acquire", {"name": "kept", "purpose": "test"}),
    ("store.usage", {}),
    ("store.sweep", {"grace_s": 0.0}),
    ("model.verify", {"all": True}),
    ("model.remove", {"name": "kept", "force": True}),
    ("model.copy", {"source": "kept", "destination": "copy"}),
)


def mount(source: str, place: str) -> None:
    done = subprocess.run(["mount", "--bind", source, place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")


@pytest.fixture
def mounted(stopped: RealDaemon) -> Iterator[str]:
    """Where the store lies in truth; at the daemon's root it is mounted."""
    elsewhere = f"{stopped.root}-disk"
    os.makedirs(elsewhere)
    os.makedirs(stopped.root)
    mount(elsewhere, stopped.root)
    yield elsewhere
    stopped.close()
    while os.path.ismount(stopped.root) or Path(stopped.root, "manifests").exists():
        subprocess.run(["umount", "-l", stopped.root], check=True)


def files(place: str) -> set[str]:
    """But for what the catalogue writes about all this."""
    return {str(path) for path in Path(place).rglob("*") if "catalog" not in path.name}


@needs_root
def test_an_unmounted_store_loses_nothing_and_comes_back_by_itself(stopped: RealDaemon, mounted: str) -> None:
    stopped.configure('[store]\ngrace = "0s"\n')
    daemon = stopped.start()
    for name in ("kept", "pinned", "leased"):
        daemon.ask("model.add", path=daemon.file(f"{name}.gguf", CONTENT + name.encode()), name=name)
    daemon.ask("model.pin", name="pinned")
    lease = daemon.ask("lease.acquire", name="leased", purpose="test", detached=True, ttl_s=600)["value"]
    daemon.ask("model.remove", name="leased", force=True)
    before = files(mounted)
    subprocess.run(["umount", "-l", daemon.root], check=True)
    for op, fields in ASKED:
        reply = daemon.ask(op, **fields)
        assert (reply["type"], reply.get("code"), reply.get("retryable")) == ("error", "internal", True), (op, reply)
        assert "mount" in reply["hint"].lower(), (op, reply)
    listed = daemon.ask("model.list")["value"]
    assert [(model["name"], model["state"]) for model in listed["models"]] == [
        ("kept", "unavailable"),
        ("pinned", "unavailable"),
    ]
    assert "away" in listed["models"][0]["reason"]
    assert daemon.ask("model.list", filter="state=ready")["value"]["models"] == []
    assert daemon.ask("daemon.status")["type"] == "result"
    assert os.listdir(daemon.root) == [], "nothing is written below the place of the mount"
    assert files(mounted) == before
    mount(mounted, daemon.root)
    assert [model["state"] for model in daemon.ask("model.list")["value"]["models"]] == ["ready", "ready"]
    assert Path(daemon.ask("model.resolve", name="kept")["value"]["path"]).read_bytes() == CONTENT + b"kept"
    assert daemon.ask("store.sweep", grace_s=0.0)["value"]["removed"] == 0
    assert Path(lease["path"]).read_bytes() == CONTENT + b"leased"
    assert daemon.ask("lease.release", lease=lease["lease"])["type"] == "result"
    assert daemon.ask("store.sweep", grace_s=0.0)["type"] == "result"
    assert not os.path.exists(lease["path"])
