"""Scrubs over 50 blobs, more and more of them rotten, whose daemon is killed again and again: each ends, finds all that
is rotten, and condemns nothing else."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from rigs.decay import flip, foreign
from rigs.eager_daemon import EagerDaemon
from rigs.rough_peers import scaled
from rigs.waiting import wait_until

MIB = 1 << 20
OWN = [*range(900_000, 900_040), *range(17 * MIB, 17 * MIB + 4)]
FOREIGN = range(3 * MIB, 3 * MIB + 6)
"""These have no checksums of blocks, so they are hashed."""

ROTS = 4
"""Blobs that rot before each scrub."""

LONGEST_LIFE_SECONDS = 1.5

LONG = (pytest.mark.torture, pytest.mark.timeout(3600))


@pytest.fixture
def eager(room: Path) -> Iterator[EagerDaemon]:
    made = EagerDaemon(str(room))
    yield made
    made.close()


def populate(daemon: EagerDaemon) -> dict[str, str]:
    """Returns the path of each model's blob."""
    paths = {}
    for size in OWN:
        source = daemon.file("source.gguf", b"GGUF" + os.urandom(size - 4))
        paths[f"own-{size}"] = daemon.ask("model.add", path=source, name=f"own-{size}")["value"]["path"]
    for size in FOREIGN:
        paths[f"foreign-{size}"] = foreign(daemon.root, f"foreign-{size}", b"GGUF" + os.urandom(size - 4))
    return paths


def is_done(daemon: EagerDaemon, job: str) -> bool:
    return bool(daemon.ask("job.show", job=job)["value"]["state"] == "done")


def killed_at_random(daemon: EagerDaemon, job: str, chosen: random.Random, most: int) -> int:
    """Returns how often the daemon was killed before the job had ended."""
    for kill in range(most):
        ends = time.monotonic() + chosen.uniform(0, LONGEST_LIFE_SECONDS)
        while time.monotonic() < ends:
            if is_done(daemon, job):
                return kill
            time.sleep(0.02)
        daemon.kill()
        daemon.start()
    return most


@pytest.mark.parametrize(("kills", "rate"), [(3, "60MB"), pytest.param(scaled(100, 12), "20MB", marks=LONG)])
def test_no_kill_hides_what_is_rotten_or_condemns_what_is_not(eager: EagerDaemon, kills: int, rate: str) -> None:
    seed = random.randrange(1 << 32)
    sys.stderr.write(f"\nseed {seed}")
    chosen = random.Random(seed)
    eager.configure(f'[scrub]\nevery = "none"\nrate = "{rate}"\nfull_every = 2\n')
    eager.start()
    paths, rotten = populate(eager), set[str]()
    while kills > 0:
        for name in chosen.sample(sorted(paths.keys() - rotten), ROTS):
            flip(paths[name], chosen.randrange(int(name.rpartition("-")[2])))
            rotten.add(name)
        with eager.connect() as wire:
            wire.request("store.scrub", id="1", on_disconnect="continue")
            job = wire.until("1", "accepted")["job"]
        kills -= max(1, killed_at_random(eager, job, chosen, kills))
        wait_until(partial(is_done, eager, job), 60, "the end of the scrub")
        scrubbed = eager.ask("job.attach", job=job)["value"]["value"]
        assert {model["name"] for model in scrubbed["damaged"]} == rotten
        assert (scrubbed["checked"], scrubbed["failed"]) == (len(paths), len(rotten))
        models = eager.ask("model.list", limit=100)["value"]["models"]
        assert {model["name"] for model in models if model["state"] == "failed"} == rotten
        assert {name for name, path in paths.items() if not os.path.exists(path)} == rotten
    assert eager.ask("model.verify", all=True)["value"]["failed"] == len(rotten)
