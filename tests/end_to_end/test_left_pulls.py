"""Pulls that are left while a server keeps them busy: nothing of them runs on, and nothing of them is held."""

from __future__ import annotations

import os
from pathlib import Path

from rigs.chaos_server import Chaos, Fault
from rigs.hostile_server import SLOW, Hostile
from rigs.pull_rig import MIB, begun, gguf, hex_of, partials
from rigs.real_daemon import RealDaemon
from rigs.waiting import wait_until

PULLS = 40
CONTENT = gguf(8 * MIB + 3, 17)


def taken(daemon: RealDaemon) -> tuple[int, int]:
    """The threads and the descriptors of the daemon."""
    return len(os.listdir(f"/proc/{daemon.pid}/task")), len(os.listdir(f"/proc/{daemon.pid}/fd"))


def test_pulls_that_are_left_take_nothing_with_them(daemon: RealDaemon) -> None:
    with Hostile(lambda _: SLOW["a head byte by byte"](server.pause)) as server:
        before = taken(daemon)
        for number in range(PULLS):
            with daemon.connect() as wire:
                wire.request("model.pull", ref=f"{server.url}/{number}/m.gguf", id="p", name=f"m{number}")
                assert wire.read()["type"] == "accepted"
                wait_until(lambda known=number: len(server.asked) > known, what="the request")  # type: ignore[misc]
                wire.request("cancel", target="p", id="c")
                assert wire.terminal("p")["code"] == "cancelled"
        wait_until(lambda: server.connections == 0, 5, "the end of its connections")
        after = taken(daemon)
    assert after[0] <= before[0] + 8, "threads of the pool"
    assert after[1] <= before[1] + 8


def test_a_pull_that_waits_for_its_second_source_lets_go_of_its_bytes(stopped: RealDaemon) -> None:
    """It asks the origin, which answers slowly, while it holds what the mirror gave."""
    gone = Fault("status", 0.5, times=1_000_000, status=404)
    with (
        Chaos(CONTENT, gone) as mirror,
        Hostile(lambda _: SLOW["a head byte by byte"](origin.pause)) as origin,
    ):
        stopped.configure(f'[[mirror]]\nmatch = "{origin.url}/"\nurl = "{mirror.url}/"\n')
        daemon = stopped.start()
        with daemon.connect() as wire:
            number = wire.request("model.pull", ref=f"{origin.url}/m.gguf", sha256=hex_of(CONTENT))
            begun(wire, number, MIB)
            wait_until(lambda: origin.asked, what="the question to the origin")
            wire.request("cancel", target=number, id="c")
            assert wire.terminal(number)["code"] == "cancelled"
        assert len(partials(daemon)) == 1

        def swept() -> bool:
            assert daemon.ask("store.sweep", grace_s=0, partials=True)["type"] == "result"
            return not partials(daemon)

        wait_until(swept, 5, "that nothing holds the partial")
        assert not list(Path(daemon.root, ".modeld").glob("partials/*"))
