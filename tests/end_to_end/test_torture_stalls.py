"""How long other clients wait while one of them makes the daemon look at 10,000 models, or at a slow disk.

Prints the waits of clients that ask for the status and for a model in use; each case takes some seconds. Where it may,
it puts the daemon and the clients before all other work of the machine, which would count as theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rigs.real_daemon import RealDaemon, Wire
from rigs.slow_disk import DaemonOnSlowDisk
from rigs.stall_probe import FIRST, Waits, probed

pytestmark = pytest.mark.torture

MODELS = 10_000
SECONDS = 6.0
SHORT = os.environ.get("MODELD_TORTURE") == "short"
P99_MS, LONGEST_MS = (250.0, 1500.0) if SHORT else (10.0, 100.0)
"""The short form runs beside other tests on as many processors: it finds a loop that is held, and measures nothing."""


def populate(root: str) -> None:
    """As another tool of the same layout would have left it, with as many blobs that no model names."""
    os.makedirs(os.path.join(root, "manifests"))
    for number in range(2 * MODELS):
        content = number.to_bytes(8, "little")
        digest = hashlib.sha256(content).hexdigest()
        directory = os.path.join(root, "blobs", "sha256", digest[:2], digest)
        os.makedirs(directory)
        Path(directory, "data").write_bytes(content)
        if number < MODELS:
            manifest = {"schema_version": 1, "name": f"model-{number:05d}", "blob": f"sha256:{digest}", "size_bytes": 8}
            Path(root, "manifests", f"model-{number:05d}.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonOnSlowDisk]:
    made = DaemonOnSlowDisk(str(tmp_path_factory.mktemp("r")))
    populate(made.root)
    made.start(prefix=FIRST)
    yield made
    made.close()


def list_all(wire: Wire) -> None:
    after: str | None = None
    while True:
        page = wire.ask("model.list", after=after, sort="-size")["value"]
        after = page.get("next")
        if after is None:
            return


def show_some(wire: Wire) -> None:
    for number in range(0, MODELS, 97):
        assert wire.ask("model.show", name=f"model-{number:05d}")["type"] == "result"


def resolve_others(wire: Wire) -> None:
    for number in range(0, MODELS, 97):
        wire.request("model.resolve", name=f"model-{number:05d}", id=f"r{number}")
    for number in range(0, MODELS, 97):
        assert wire.terminal(f"r{number}")["type"] == "result"


def one(op: str, **fields: object) -> Callable[[Wire], None]:
    def work(wire: Wire) -> None:
        assert wire.ask(op, **fields)["type"] == "result"

    return work


WORK: dict[str, Callable[[Wire], None]] = {
    "nothing": lambda _: time.sleep(0.1),
    "list": list_all,
    "show": show_some,
    "resolve": resolve_others,
    "usage": one("store.usage"),
    "sweep": one("store.sweep", dry_run=True, grace_s=0),
    "verify": one("model.verify", all=True),
    "scrub": one("store.scrub"),
    "jobs": one("job.list", limit=1000),
    "describe": one("daemon.describe"),
}


def waits_during(daemon: RealDaemon, work: Callable[[Wire], None], op: str, **fields: object) -> Waits:
    with daemon.connect() as wire:
        wire.socket.settimeout(300)
        with probed(daemon.socket, op, **fields) as waits:
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                work(wire)
    return waits


def judge(what: str, waits: Waits) -> None:
    sys.stderr.write(f"\n{what:40} {waits}")
    assert waits.p99 <= P99_MS
    assert waits.longest <= LONGEST_MS


PROBES: dict[str, tuple[str, dict[str, object]]] = {
    "status": ("daemon.status", {}),
    "resolve": ("model.resolve", {"name": "model-00000"}),
}
PROBED = ["status"] if SHORT else list(PROBES)


@pytest.mark.parametrize("probe", PROBED)
@pytest.mark.parametrize("what", WORK)
def test_other_clients_wait_for_no_work_on_many_models(big: DaemonOnSlowDisk, what: str, probe: str) -> None:
    op, fields = PROBES[probe]
    judge(f"{probe} during {what} of {MODELS} models", waits_during(big, WORK[what], op, **fields))


@pytest.mark.parametrize("probe", PROBED)
@pytest.mark.parametrize("what", ["list", "show", "resolve", "usage", "sweep", "verify"])
def test_other_clients_wait_for_no_slow_disk(big: DaemonOnSlowDisk, what: str, probe: str) -> None:
    op, fields = PROBES[probe]
    with big.connect() as wire:
        for _ in range(3):
            wire.ask(op, **fields)
    with big.connect() as wire, big.slow(3000):
        requests: dict[str, tuple[str, dict[str, object]]] = {
            "list": ("model.list", {}),
            "show": ("model.show", {"name": "model-00001"}),
            "resolve": ("model.resolve", {"name": "model-00002"}),
            "usage": ("store.usage", {}),
            "sweep": ("store.sweep", {}),
            "verify": ("model.verify", {"names": ["model-00003"]}),
        }
        other, more = requests[what]
        with probed(big.socket, op, **fields) as waits:
            ends = time.monotonic() + SECONDS
            wire.request(other, **more)
            while time.monotonic() < ends:
                time.sleep(0.1)
    judge(f"{probe} during {what}, disk of 3 s", waits)
    with big.connect() as wire:
        # The disk is fast again: nothing of the case is left for the next one.
        assert wire.ask("model.show", name="model-00001")["type"] == "result"
