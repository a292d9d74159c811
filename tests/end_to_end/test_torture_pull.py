"""SIGKILL at any moment of a pull, over and over: each pull ends well, and hardly a byte is fetched twice for it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from rigs.pull_rig import MIB, gguf, hex_of, job_state, partials, put, sent
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import Nginx, nginx, nginx_path
from rigs.waiting import wait_until

pytestmark = [
    pytest.mark.torture,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed"),
]

KILLS = 8 if os.environ.get("MODELD_TORTURE") == "short" else 200
CONNECTIONS = (1, 2, 4)
SIZE = 48 * MIB
PER_PULL = 4
"""Kills that one pull goes through at most: afterwards it is left in peace."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with nginx(tmp_path / "nginx") as made:
        yield made


def all_sent(web: Nginx, size: int) -> bool:
    return sent(web) >= size


def test_killed_over_and_over_each_pull_ends_well(stopped: RealDaemon, web: Nginx) -> None:
    chance = random.Random(7)
    killed = round_ = 0
    twice = dict.fromkeys(CONNECTIONS, 0)
    kills = dict.fromkeys(CONNECTIONS, 0)
    while killed < KILLS:
        round_ += 1
        connections = chance.choice(CONNECTIONS)
        stopped.environ["MODELD_TRANSFER_CONNECTIONS_PER_FILE"] = str(connections)
        content = gguf(SIZE + chance.randrange(1000), round_)
        address, before = put(web, f"m{round_}.gguf", content), sent(web)
        stopped.start()
        with stopped.connect() as wire:
            number = wire.request("model.pull", ref=address, max_rate=60_000_000, on_disconnect="continue")
            job = wire.until(number, "accepted")["job"]
            kills_here = min(PER_PULL, KILLS - killed)
            for _ in range(kills_here):
                # No condition: any moment will do, also one at which all is over.
                time.sleep(chance.uniform(0.01, 0.35))
                stopped.kill()
                killed += 1
                stopped.start()
        assert job_state(stopped, job, "done", "failed", "cancelled")["state"] == "done"
        value = stopped.ask("model.resolve", name=f"m{round_}")["value"]
        assert value["blob"] == f"sha256:{hex_of(content)}"
        assert Path(value["path"]).read_bytes() == content
        wait_until(partial(all_sent, web, before + SIZE), what="the server's log")
        more = sent(web) - before - len(content)
        assert 0 <= more <= kills_here * connections * 16 * MIB
        twice[connections] += more
        kills[connections] += kills_here
        assert partials(stopped) == []
        stopped.kill()
        Path(web.files, f"m{round_}.gguf").unlink()
    for connections, kills_here in kills.items():
        print(f"{connections} connections: {kills_here} kills, {twice[connections] / MIB:.1f} MiB fetched twice")
