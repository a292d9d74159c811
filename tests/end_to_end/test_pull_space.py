"""Room for what is pulled: promised before the first byte, over all jobs; and a disk that fills in the middle."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rigs.chaos_server import Chaos, Fault
from rigs.pull_rig import MIB, begun, downloads_open, failed, gguf, hex_of, make_old, partials, pulled
from rigs.real_daemon import RealDaemon
from rigs.traced_daemon import strace, traced
from rigs.waiting import wait_until

DISK = 48 * MIB
__all__ = ["strace"]
pytestmark = pytest.mark.usefixtures("strace")

CONTENT = gguf(20 * MIB, 151)
NO_ALLOCATION = ("trace=fallocate", "inject=fallocate:error=EOPNOTSUPP")


@pytest.fixture
def small(room: Path) -> Iterator[RealDaemon]:
    """A daemon whose store lies on a small disk of its own, without the usual floor of free space."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small filesystem needs root")
    disk = room / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)], check=True)
    daemon = RealDaemon(str(room), {"MODELS_HOME": str(disk / "models"), "MODELD_STORE_MIN_FREE": "0"})
    daemon.environ |= {"MODELD_STORE_GRACE": "0s", "MODELD_LIMITS_RUNNING_BYTES": "4"}
    daemon.root = str(disk / "models")
    try:
        yield daemon
    finally:
        daemon.close()
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("allocates", [True, False])
def test_what_running_jobs_still_need_is_not_there_for_others(small: RealDaemon, allocates: bool) -> None:
    """Two of 20 MiB fit into 48, a third does not: it is told so before a byte of it is fetched. Also where the
    filesystem cannot allocate beforehand, and so hardly anything is used yet."""
    slow, content = 4 * MIB, gguf(20 * MIB, 153)
    with ExitStack() as stack:
        one = stack.enter_context(Chaos(CONTENT, rate=slow))
        two = stack.enter_context(Chaos(gguf(20 * MIB, 152), rate=slow))
        three = stack.enter_context(Chaos(content))
        small.start()
        if not allocates:
            stack.enter_context(traced(small, *NO_ALLOCATION))
        first, second = stack.enter_context(small.connect()), stack.enter_context(small.connect())
        a = first.request("model.pull", ref=f"{one.url}/a.gguf", max_rate=slow)
        begun(first, a, MIB)
        b = second.request("model.pull", ref=f"{two.url}/b.gguf", max_rate=slow)
        begun(second, b, MIB)
        refused = failed(small, f"{three.url}/c.gguf", "no_space")
        details = refused["details"]
        assert details["needed_bytes"] == 20 * MIB
        assert details["free_bytes"] < 20 * MIB
        assert (details["promised_bytes"] > 20 * MIB) is not allocates
        assert [request.method for request in three.requests] == ["HEAD"]
        for wire, number in ((first, a), (second, b)):
            wire.request("cancel", target=number, id="c")
            assert wire.terminal(number)["code"] == "cancelled"
        assert len(partials(small)) == 2
        wait_until(lambda: not downloads_open(small), what="the downloads closed")
        make_old(partials(small))

        def swept() -> bool:
            assert small.ask("store.sweep")["type"] == "result"
            return partials(small) == []

        wait_until(swept, what="a sweep of the downloads that nothing holds any more")
        assert pulled(small, f"{three.url}/c.gguf")["size_bytes"] == 20 * MIB


def test_a_disk_that_fills_in_the_middle_keeps_what_came(small: RealDaemon) -> None:
    """Somebody else's bytes take the room that was there: the write itself fails, and the next pull goes on."""
    with Chaos(CONTENT, rate=4 * MIB) as chaos:
        small.environ["MODELD_TRANSFER_CONNECTIONS_PER_FILE"] = "1"
        small.start()
        with traced(small, *NO_ALLOCATION), small.connect() as wire:
            number = wire.request("model.pull", ref=f"{chaos.url}/a.gguf", sha256=hex_of(CONTENT))
            begun(wire, number, 10 * MIB)
            filled = fill(small)
            reply = wire.terminal(number)
        assert reply["code"] == "no_space", reply
        assert reply["hint"]
        assert small.ask("daemon.status")["type"] == "result"
        assert small.ask("model.list")["value"]["models"] == []
        assert len(partials(small)) == 1
        os.unlink(filled)
        chaos.rate = None
        with small.connect() as wire:
            number = wire.request("model.pull", ref=f"{chaos.url}/a.gguf", sha256=hex_of(CONTENT))
            seen = []
            while (reply := wire.read())["type"] not in ("result", "error"):
                seen.append(reply)
        assert reply["type"] == "result", reply
        last = seen[-1]
        assert last["reused_bytes"] >= 8 * MIB, "what came before is not fetched again"
        assert last["network_bytes"] + last["reused_bytes"] == len(CONTENT)
        assert small.process is not None
        assert small.process.poll() is None, "without a restart"


def test_a_file_of_unknown_size_takes_room_as_it_comes(small: RealDaemon) -> None:
    with Chaos(CONTENT, Fault("chunked", times=99), rate=16 * MIB, ranges=False) as chaos:
        small.start()
        assert pulled(small, f"{chaos.url}/a.gguf")["size_bytes"] == len(CONTENT), "20 MiB fit into 48"
        with small.connect() as wire:
            number = wire.request("model.pull", ref=f"{chaos.url}/b.gguf?other")
            begun(wire, number, 4 * MIB)
            filled = fill(small)
            reply = wire.terminal(number)
        assert reply["code"] == "no_space", reply
        os.unlink(filled)


def fill(daemon: RealDaemon) -> str:
    path = os.path.join(daemon.room, "disk", "fill")
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096) == 4096:
                pass
        except OSError:
            pass
    return path
